// What reads by HTTP cost, and what they cost others.
//
//   kelp-http-compare --run-dir DIR --server HOST:PORT --fids FILE
//     the same needles through kelpd's HTTP path and with libcurl alone (one easy handle that keeps
//     its connection), in short slices that take turns
//   kelp-http-compare --run-dir DIR --fids FILE --stalled FID
//     reads that kelpd answers from local files, alone and beside reads of FID that no server
//     answers; those are given up with their connection when a slice ends
//
// A ratio is that of neighbouring slices, so whatever else the machine does troubles both.
#include <curl/curl.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bench/kelp_client.h"
#include "shm_ring/ticks.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

constexpr std::size_t kBufferBytes = 64 * 1024;
constexpr std::uint32_t kStalledTimeoutUs = 60'000'000;  // longer than any slice
constexpr std::uint32_t kUncounted = 4;  // they wake what slept during the other side's slice

struct Options {
  std::string run_dir, server, fids, stalled, json = "/dev/stdout";
  std::uint32_t pairs = 201, reads = 200, stalled_reads = 200, settle_ms = 100;
};

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "kelp-http-compare: %s\n", why.c_str());
  std::exit(1);
}

double us_since(Ticks start) {
  return static_cast<double>(TickRate::instance().to_ns(ticks_now() - start)) / 1000;
}

std::vector<std::string> lines_of(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  if (lines.empty()) give_up(path + " names no objects");
  return lines;
}

KelpClient attach(const Options& options) {
  auto client = KelpClient::open(options.run_dir, kBufferBytes, 5'000'000);
  if (!client) give_up(client.error().what);
  return std::move(*client);
}

/// The yardstick: libcurl as a program uses it that reads one object after the other.
class Direct {
 public:
  explicit Direct(std::string server) : base_("http://" + std::move(server) + "/") {
    if (!curl_) give_up("no libcurl handle");
    curl_easy_setopt(curl_.get(), CURLOPT_WRITEFUNCTION, &Direct::store);
    curl_easy_setopt(curl_.get(), CURLOPT_WRITEDATA, this);
    curl_easy_setopt(curl_.get(), CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl_.get(), CURLOPT_TIMEOUT_MS, 5000L);
  }

  std::span<const char> get(const std::string& fid) {
    bytes_ = 0;
    curl_easy_setopt(curl_.get(), CURLOPT_URL, (base_ + fid).c_str());
    const CURLcode code = curl_easy_perform(curl_.get());
    long status = 0;
    curl_easy_getinfo(curl_.get(), CURLINFO_RESPONSE_CODE, &status);
    if (code != CURLE_OK || status != 200) {
      give_up("GET " + fid + ": " + curl_easy_strerror(code) + ", " + std::to_string(status));
    }
    return {buffer_.data(), bytes_};
  }

 private:
  struct Cleanup {
    void operator()(CURL* handle) const noexcept { curl_easy_cleanup(handle); }
  };

  static std::size_t store(char* data, std::size_t size, std::size_t count, void* self) {
    Direct& direct = *static_cast<Direct*>(self);
    const std::size_t bytes = size * count;
    if (bytes > direct.buffer_.size() - direct.bytes_) return 0;
    std::copy_n(data, bytes, direct.buffer_.data() + direct.bytes_);
    direct.bytes_ += bytes;
    return bytes;
  }

  const std::string base_;
  std::unique_ptr<CURL, Cleanup> curl_{curl_easy_init()};
  std::vector<char> buffer_ = std::vector<char>(kBufferBytes);
  std::size_t bytes_ = 0;
};

/// A read that has to be answered, and by that path.
std::span<const char> read(KelpClient& client, const std::string& fid, kelp_path path) {
  kelp_completion done;
  const kelp_status status = client.read(fid.c_str(), 0, kBufferBytes, done);
  if (status != KELP_OK || done.path != path) {
    give_up(fid + ": " + kelp_status_name(status) + " by " +
            kelp_path_name(static_cast<kelp_path>(done.path)) + ", not ok by " +
            kelp_path_name(path));
  }
  return client.buffer().first(done.bytes);
}

/// Microseconds of each of `count` reads of the objects in turn.
template <class Read>
std::vector<double> slice(const std::vector<std::string>& fids, std::uint32_t count,
                          Read read_one) {
  std::vector<double> samples;
  for (std::uint32_t i = 0; i < count + kUncounted; ++i) {
    const Ticks start = ticks_now();
    read_one(fids[i % fids.size()]);
    if (i >= kUncounted) samples.push_back(us_since(start));
  }
  return samples;
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

nlohmann::json compare_with_direct(const Options& options) {
  const std::vector<std::string> fids = lines_of(options.fids);
  KelpClient client = attach(options);
  Direct direct(options.server);
  for (const std::string& fid : fids) {
    const auto wanted = direct.get(fid);
    if (!std::ranges::equal(read(client, fid, KELP_PATH_HTTP), wanted)) {
      give_up("Kelp's bytes of " + fid + " are not the server's");
    }
  }
  std::vector<double> kelps, directs, ratios;
  for (std::uint32_t pair = 0; pair < options.pairs; ++pair) {
    const auto by_kelp = [&] {
      return median(slice(fids, options.reads,
                          [&](const std::string& fid) { read(client, fid, KELP_PATH_HTTP); }));
    };
    const auto directly = [&] {
      return median(slice(fids, options.reads, [&](const std::string& fid) { direct.get(fid); }));
    };
    // Each comes first in half of the pairs.
    const double first = pair % 2 == 0 ? by_kelp() : directly();
    const double second = pair % 2 == 0 ? directly() : by_kelp();
    kelps.push_back(pair % 2 == 0 ? first : second);
    directs.push_back(pair % 2 == 0 ? second : first);
    ratios.push_back(kelps.back() / directs.back());
  }
  return {figure("p50 of 4 KiB by HTTP through kelpd", kelps, "us", nullptr),
          figure("p50 of 4 KiB by libcurl alone", directs, "us", nullptr),
          figure("p50 of 4 KiB by HTTP, kelpd / libcurl alone", ratios, "x", 1.3)};
}

/// Reads that nobody answers, for as long as this lives. Its connection ends them.
class Stalled {
 public:
  explicit Stalled(const Options& options) : client_(attach(options)) {
    kelp_request request{};
    if (kelp_fid_parse(options.stalled.c_str(), &request.fid) != KELP_OK) give_up("no file id");
    request.length = 4096;
    request.timeout_us = kStalledTimeoutUs;
    for (std::uint32_t i = 0; i < options.stalled_reads; ++i) {
      request.tag = i;
      // They never get a byte, so that they may as well share the pages.
      request.buffer = client_.buffer().data() + (i % (kBufferBytes / 4096)) * 4096;
      const kelp_status status = kelp_submit(client_.channel(), &request, 1, nullptr);
      if (status != KELP_OK) give_up(std::string("a stalled read: ") + kelp_error_detail());
    }
  }

  void all_in_flight() {
    kelp_completion done{};
    std::uint32_t reaped = 0;
    const kelp_status status = kelp_reap(client_.channel(), &done, 1, 0, &reaped);
    if (status == KELP_OK && reaped == 0) return;
    give_up(std::string("a read that nobody answers ended: ") +
            kelp_status_name(static_cast<kelp_status>(done.status)));
  }

 private:
  KelpClient client_;
};

nlohmann::json compare_beside_stalled(const Options& options) {
  const std::vector<std::string> fids = lines_of(options.fids);
  KelpClient client = attach(options);
  const std::chrono::milliseconds settle(options.settle_ms);
  const auto p99 = [&] {
    return quantile(slice(fids, options.reads,
                          [&](const std::string& fid) { read(client, fid, KELP_PATH_LOCAL); }),
                    0.99);
  };
  std::vector<double> alone, beside, ratios;
  for (std::uint32_t pair = 0; pair < options.pairs; ++pair) {
    std::this_thread::sleep_for(settle);
    alone.push_back(p99());
    Stalled stalled(options);
    std::this_thread::sleep_for(settle);
    beside.push_back(p99());
    stalled.all_in_flight();
    ratios.push_back(beside.back() / alone.back());
  }
  const std::string many = std::to_string(options.stalled_reads) + " stalled HTTP reads";
  return {figure("p99 of a local 4 KiB read alone", alone, "us", nullptr),
          figure("p99 of a local 4 KiB read beside " + many, beside, "us", nullptr),
          figure("p99 of a local read, beside " + many + " / alone", ratios, "x", 1.5)};
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app(
      "Reads by HTTP through kelpd beside libcurl alone, and local reads beside stalled ones");
  app.add_option("--run-dir", options.run_dir, "kelpd's run directory")->required();
  app.add_option("--fids", options.fids, "file with a file id per line")->required();
  app.add_option("--server", options.server, "volume server, HOST:PORT");
  app.add_option("--stalled", options.stalled, "file id that no server answers for");
  app.add_option("--pairs", options.pairs, "pairs of slices")->check(CLI::Range(1, 10000));
  app.add_option("--reads", options.reads, "reads in a slice")->check(CLI::Range(1, 100000));
  app.add_option("--stalled-reads", options.stalled_reads, "stalled reads at once");
  app.add_option("--json", options.json, "where the document goes");
  CLI11_PARSE(app, argc, argv);
  if (options.server.empty() == options.stalled.empty()) {
    std::fprintf(stderr, "kelp-http-compare: one of --server and --stalled\n");
    return 2;
  }
  const nlohmann::json figures = options.stalled.empty()
                                     ? kelp::bench::compare_with_direct(options)
                                     : kelp::bench::compare_beside_stalled(options);
  std::ofstream(options.json) << nlohmann::json{{"figures", figures}}.dump(2) << '\n';
  return 0;
}
