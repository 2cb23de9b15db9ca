// A no-op through libkelp and kelpd's worker, beside the least two threads can do: pass a number to
// and fro over two cache lines. Slices of at most a millisecond alternate, on the same two CPUs.
//
//   kelp-ring-compare --run-dir DIR --worker-cpu 0 --client-cpu 1 [--pairs N] [--json FILE]
//   kelp-ring-compare --run-dir DIR --count N       only N no-ops, polled: for strace
#include <pthread.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "bench/kelp_client.h"
#include "shm_ring/ticks.h"

namespace kelp::bench {
namespace {

constexpr std::uint64_t kSliceUs = 1000;
/// Longer than the worker spins after its last work: it sleeps before the other side takes its CPU.
constexpr std::chrono::microseconds kHandOver{300};

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (::pthread_setaffinity_np(::pthread_self(), sizeof set, &set) != 0) {
    std::fprintf(stderr, "cannot run on CPU %d\n", cpu);
    std::exit(1);
  }
}

/// The yardstick. The echoing thread sleeps between slices.
class PingPong {
 public:
  explicit PingPong(int echo_cpu) : echo_([this, echo_cpu] { echo(echo_cpu); }) {}
  ~PingPong() {
    wanted_.store(kEnd);
    wanted_.notify_one();
    echo_.join();
  }

  /// Nanoseconds per round trip over one slice.
  double slice(Ticks length) {
    wanted_.store(kRun);
    wanted_.notify_one();
    round_trip();  // the other side is awake now
    const Ticks start = ticks_now();
    std::uint64_t trips = 0;
    Ticks now = start;
    while (now - start < length) {
      for (int i = 0; i < 16; ++i) round_trip();
      trips += 16;
      now = ticks_now();
    }
    wanted_.store(kSleep);
    return static_cast<double>(TickRate::instance().to_ns(now - start)) /
           static_cast<double>(trips);
  }

 private:
  enum : std::uint32_t { kSleep, kRun, kEnd };

  void round_trip() {
    ping_.store(++sent_, std::memory_order_release);
    while (pong_.load(std::memory_order_acquire) != sent_) cpu_relax();
  }

  void echo(int cpu) {
    pin(cpu);
    std::uint64_t seen = 0;
    while (true) {
      wanted_.wait(kSleep);
      while (wanted_.load(std::memory_order_relaxed) == kRun) {
        const std::uint64_t value = ping_.load(std::memory_order_acquire);
        if (value != seen) pong_.store(seen = value, std::memory_order_release);
      }
      if (wanted_.load() == kEnd) return;
    }
  }

  alignas(128) std::atomic<std::uint64_t> ping_{0};
  alignas(128) std::atomic<std::uint64_t> pong_{0};
  alignas(128) std::atomic<std::uint32_t> wanted_{kSleep};
  std::uint64_t sent_ = 0;
  std::thread echo_;
};

/// One no-op, submitted and polled for: no call here sleeps.
void no_op(kelp_channel* channel) {
  kelp_request request{};
  request.op = KELP_OP_NOP;
  kelp_completion done;
  std::uint32_t reaped = 0;
  kelp_status status = kelp_submit(channel, &request, 1, nullptr);
  while (status == KELP_OK && reaped == 0) status = kelp_reap(channel, &done, 1, 0, &reaped);
  if (status != KELP_OK || done.status != KELP_OK) {
    std::fprintf(stderr, "a no-op failed: %s\n", kelp_error_detail());
    std::exit(1);
  }
}

double no_op_slice(kelp_channel* channel, Ticks length) {
  no_op(channel);  // wakes the worker
  const Ticks start = ticks_now();
  std::uint64_t trips = 0;
  Ticks now = start;
  while (now - start < length) {
    for (int i = 0; i < 16; ++i) no_op(channel);
    trips += 16;
    now = ticks_now();
  }
  return static_cast<double>(TickRate::instance().to_ns(now - start)) / static_cast<double>(trips);
}

nlohmann::json figure(const char* name, std::vector<double> samples, const char* unit,
                      nlohmann::json must) {
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double fraction) {
    return samples[static_cast<std::size_t>(fraction * static_cast<double>(samples.size() - 1))];
  };
  return {{"name", name},     {"value", at(0.5)},        {"low", at(0.25)},
          {"high", at(0.75)}, {"must", std::move(must)}, {"better", "low"},
          {"unit", unit}};
}

int compare(kelp_channel* channel, int worker_cpu, std::uint32_t pairs, const std::string& json) {
  PingPong yardstick(worker_cpu);
  const Ticks length = TickRate::instance().from_us(kSliceUs);
  std::vector<double> no_ops, trips, ratios;
  for (std::uint32_t pair = 0; pair < pairs; ++pair) {
    no_ops.push_back(no_op_slice(channel, length));
    std::this_thread::sleep_for(kHandOver);
    trips.push_back(yardstick.slice(length));
    ratios.push_back(no_ops.back() / trips.back());
  }
  const nlohmann::json document = {{"figures",
                                    {figure("ring no-op round trip", no_ops, "ns", nullptr),
                                     figure("two-line ping-pong", trips, "ns", nullptr),
                                     figure("ring no-op / two-line ping-pong", ratios, "x", 2.0)}}};
  std::ofstream(json) << document.dump(2) << '\n';
  return 0;
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  CLI::App app("A no-op through the ring beside a bare ping-pong, in turns");
  std::string run_dir, json = "/dev/stdout";
  int worker_cpu = 0, client_cpu = 1;
  std::uint32_t pairs = 1500;
  std::uint64_t count = 0;
  app.add_option("--run-dir", run_dir, "kelpd's run directory")->required();
  app.add_option("--worker-cpu", worker_cpu, "the CPU kelpd's worker is pinned to");
  app.add_option("--client-cpu", client_cpu, "the CPU of this program");
  app.add_option("--pairs", pairs, "pairs of slices")->check(CLI::Range(1, 100000));
  app.add_option("--count", count, "only this many no-ops");
  app.add_option("--json", json, "where the document goes");
  CLI11_PARSE(app, argc, argv);

  kelp::bench::pin(client_cpu);
  auto client = kelp::bench::KelpClient::open(run_dir, 4096, 5'000'000);
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().what.c_str());
    return 1;
  }
  if (count > 0) {
    for (std::uint64_t i = 0; i < count; ++i) kelp::bench::no_op(client->channel());
    return 0;
  }
  return kelp::bench::compare(client->channel(), worker_cpu, pairs, json);
}
