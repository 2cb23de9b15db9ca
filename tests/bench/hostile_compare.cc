// Reads of a well-behaved client beside a hostile one, and alone, in turns.
//
// One thread plays both: before each read it does what the hostile program would have been doing,
// and the clock starts after that. So the figure is what hostility costs in the daemon, and not how
// two programs share a CPU. Run it beside a kelpd whose worker always polls, on another CPU.
//
// Alone, it reads at the same pace. The kernel's timer tick stops a CPU for as long as ten reads
// take: reads one right behind the other share that one among five hundred, those at intervals
// meet it as often as one in a hundred.
#include <fcntl.h>
#include <linux/falloc.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "bench/kelp_client.h"
#include "shm_ring/ticks.h"
#include "support/raw_client.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

using test::RawClient;

constexpr std::uint32_t kChannels = 64;
constexpr std::uint64_t kHostileBytes = 4 << 20;
constexpr int kReadsPerSlice = 500;
constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
/// What the daemon still has of the hostile client's work is over by then.
constexpr std::chrono::milliseconds kHandOver{3};

/// A client of 64 channels that does as it likes.
class Hostile {
 public:
  Hostile(std::string socket_path, kelp_fid fid) : socket_path_(std::move(socket_path)), fid_(fid) {
    attach();
  }

  /// Keeps every ring as full as it can be answered.
  void flood(const std::function<void(Submission&)>& change) {
    const std::uint32_t most = client_->layout.submission_entries;
    for (std::uint32_t ring = 0; ring < kChannels; ++ring) {
      std::uint32_t& sent = sent_[ring];
      std::uint32_t& reaped = reaped_[ring];
      while (reaped != sent && client_->completion(reaped, ring).sequence == reaped + 1) ++reaped;
      client_->set_completion_head(reaped, ring);
      while (sent - reaped < most) {
        Submission entry = read();
        change(entry);
        client_->put(sent++, entry, ring);
      }
    }
  }
  void scribble_data() {
    auto* const words = reinterpret_cast<std::uint64_t*>(client_->data.data());
    for (int i = 0; i < 200; ++i) words[random_() % (kHostileBytes / 8)] = random_();
  }
  void scribble_rings() {
    auto* const words = reinterpret_cast<std::uint64_t*>(client_->segment.data());
    const std::size_t count = client_->layout.segment_bytes() / 8;
    for (int i = 0; i < 200; ++i) {
      const std::uint64_t value = random_() % 2 == 0 ? random_() % 16 : random_();
      __atomic_store_n(words + random_() % count, value, __ATOMIC_RELAXED);
    }
  }
  void punch() { ::fallocate(client_->fds[1].get(), kPunch, 0, static_cast<off_t>(kHostileBytes)); }
  void ring_the_bell() {
    const std::uint64_t one = 1;
    for (std::uint32_t ring = 0; ring < kChannels; ++ring) {
      __atomic_store_n(&client_->control(ring).client_sleeps, 1U, __ATOMIC_RELAXED);
      static_cast<void>(!::write(client_->fds[2 + kChannels + ring].get(), &one, sizeof one));
    }
  }
  void never_reap() {
    for (std::uint32_t ring = 0; ring < kChannels; ++ring) {
      client_->put(sent_[ring]++, read(), ring);
    }
  }
  void attach_and_leave() { RawClient(socket_path_, 1, 4096); }
  void attach_half() {
    auto socket = connect_seqpacket(socket_path_, 1000);
    if (socket) half_open_.push_back(std::move(*socket));
    if (half_open_.size() > 100) half_open_.clear();
  }

  /// It may have been cut off; what it did to its rings is forgotten, too.
  void attach() {
    client_.reset();
    client_ = std::make_unique<RawClient>(socket_path_, kChannels, kHostileBytes);
    sent_.assign(kChannels, 0);
    reaped_.assign(kChannels, 0);
  }

 private:
  Submission read() const {
    Submission entry{};
    entry.op = OpCode::kRead;
    entry.volume = fid_.volume;
    entry.needle = fid_.needle;
    entry.cookie = fid_.cookie;
    entry.length_bytes = 8192;
    return entry;
  }

  const std::string socket_path_;
  const kelp_fid fid_;
  std::mt19937_64 random_{17};
  std::unique_ptr<RawClient> client_;
  std::vector<std::uint32_t> sent_;
  std::vector<std::uint32_t> reaped_;
  std::vector<UniqueFd> half_open_;
};

struct Behaviour {
  const char* name;
  std::function<void()> act;
};

struct Slice {
  double p99_us = 0;
  Ticks between = 0;  // the reads, on average
};

/// A slice of reads; `act` comes before each of them.
Slice slice(KelpClient& client, const char* fid, const std::function<void()>& act) {
  std::vector<double> samples;
  Ticks between = 0;
  for (int i = 0; i < kReadsPerSlice; ++i) {
    const Ticks begin = ticks_now();
    act();
    const Ticks start = ticks_now();
    kelp_completion done;
    const kelp_status status = client.read(fid, 0, 64 * 1024, done);
    const Ticks took = ticks_now() - start;
    if (status != KELP_OK) {
      std::fprintf(stderr, "a read answered %s: %s\n", kelp_status_name(status),
                   kelp_error_detail());
      std::exit(1);
    }
    samples.push_back(static_cast<double>(TickRate::instance().to_ns(took)) / 1000);
    between += start - begin;
  }
  return {quantile(std::move(samples), 0.99), between / kReadsPerSlice};
}

void idle(Ticks time) {
  const Ticks end = ticks_now() + time;
  while (ticks_now() < end) cpu_relax();
}

nlohmann::json figure(const std::string& name, const std::vector<double>& samples, const char* unit,
                      nlohmann::json must) {
  return {{"name", name},
          {"value", median(samples)},
          {"low", quantile(samples, 0.25)},
          {"high", quantile(samples, 0.75)},
          {"must", std::move(must)},
          {"better", "low"},
          {"unit", unit}};
}

nlohmann::json compare(KelpClient& client, const std::string& fid, Hostile& hostile, int pairs,
                       std::string_view only) {
  const Behaviour behaviours[] = {
      {"fills 64 rings with no-ops", [&] { hostile.flood([](auto& e) { e.op = OpCode::kNop; }); }},
      {"fills 64 rings with reads", [&] { hostile.flood([](auto&) {}); }},
      {"lies about lengths and offsets",
       [&] { hostile.flood([](auto& e) { e.buffer_offset_bytes = UINT64_MAX - e.tag; }); }},
      {"rewrites its buffers during reads",
       [&] {
         hostile.flood([](auto&) {});
         hostile.scribble_data();
       }},
      {"scribbles over its rings", [&] { hostile.scribble_rings(); }},
      {"punches holes in its buffers during reads",
       [&] {
         hostile.flood([](auto&) {});
         hostile.punch();
       }},
      {"floods doorbells", [&] { hostile.ring_the_bell(); }},
      {"never reaps", [&] { hostile.never_reap(); }},
      {"attaches and leaves", [&] { hostile.attach_and_leave(); }},
      {"leaves attaches half open", [&] { hostile.attach_half(); }},
  };
  nlohmann::json figures = nlohmann::json::array();
  std::vector<double> alone;
  for (const Behaviour& behaviour : behaviours) {
    if (std::string_view(behaviour.name).find(only) == std::string_view::npos) continue;
    std::vector<double> ratios;
    for (int pair = 0; pair < pairs; ++pair) {
      hostile.attach();
      std::this_thread::sleep_for(kHandOver);
      const Slice beside = slice(client, fid.c_str(), behaviour.act);
      hostile.attach();
      std::this_thread::sleep_for(kHandOver);
      const Slice solo = slice(client, fid.c_str(), [&] { idle(beside.between); });
      alone.push_back(solo.p99_us);
      ratios.push_back(beside.p99_us / solo.p99_us);
    }
    figures.push_back(
        figure(std::string("p99 beside one that ") + behaviour.name + " / alone", ratios, "x", 3));
  }
  figures.insert(figures.begin(), figure("p99 of a 4 KiB read alone", alone, "us", nullptr));
  return figures;
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  CLI::App app("A well-behaved client's reads beside a hostile one, and alone, in turns");
  std::string run_dir, fid, json = "/dev/stdout", only;
  int pairs = 30;
  app.add_option("--run-dir", run_dir, "kelpd's run directory")->required();
  app.add_option("--fid", fid, "a needle of about 4 KiB")->required();
  app.add_option("--pairs", pairs, "pairs of slices for each behaviour")
      ->check(CLI::Range(1, 1000));
  app.add_option("--only", only, "the behaviours whose names contain this");
  app.add_option("--json", json, "where the document goes");
  CLI11_PARSE(app, argc, argv);

  auto client = kelp::bench::KelpClient::open(run_dir, 64 * 1024, 5'000'000);
  kelp_fid parsed;
  if (!client || kelp_fid_parse(fid.c_str(), &parsed) != KELP_OK) {
    std::fprintf(stderr, "%s\n", client ? "not a file id" : client.error().what.c_str());
    return 1;
  }
  try {
    kelp::bench::Hostile hostile(run_dir + "/" + kelp::kAttachSocketName, parsed);
    const nlohmann::json document = {
        {"figures", kelp::bench::compare(*client, fid, hostile, pairs, only)}};
    std::ofstream(json) << document.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
