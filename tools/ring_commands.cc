#include "tools/ring_commands.h"

#include <array>
#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>

#include "shm_ring/histogram.h"
#include "tools/control_command.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kPaths = 6;  // kelp_path

std::uint64_t ns_between(Clock::time_point from, Clock::time_point to) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(to - from).count());
}

double us(std::uint64_t ns) {
  return static_cast<double>(ns) / 1000;
}

json latencies(const Histogram& times) {
  return {{"p50", us(times.quantile(0.5))},
          {"p90", us(times.quantile(0.9))},
          {"p99", us(times.quantile(0.99))},
          {"max", us(times.max())}};
}

void add_latencies(FactList& list, const Histogram& times) {
  list.add("p50", {fixed(us(times.quantile(0.5)), 1) + " us"});
  list.add("p90", {fixed(us(times.quantile(0.9)), 1) + " us"});
  list.add("p99", {fixed(us(times.quantile(0.99)), 1) + " us"});
  list.add("slowest", {fixed(us(times.max()), 1) + " us"});
}

/// What came of the reads of a bench.
struct Tally {
  std::uint64_t ok = 0;
  std::uint64_t failed = 0;
  std::uint64_t bytes = 0;
  std::array<std::uint64_t, kPaths> paths{};
  std::string first_failure;
  Histogram times;
  std::uint64_t took_ns = 0;

  double seconds() const { return std::max(static_cast<double>(took_ns), 1.0) / 1e9; }
  double per_second() const { return static_cast<double>(ok) / seconds(); }
  double bytes_per_second() const { return static_cast<double>(bytes) / seconds(); }
};

void count(Tally& tally, const Outcome<kelp_completion>& done) {
  if (!done) {
    ++tally.failed;
    if (tally.first_failure.empty()) tally.first_failure = done.error().what;
    return;
  }
  ++tally.ok;
  tally.bytes += done->bytes;
  if (done->path < kPaths) ++tally.paths[done->path];
}

json paths_of(const Tally& tally) {
  json paths = json::object();
  for (std::size_t path = 0; path < kPaths; ++path) {
    if (tally.paths[path] == 0) continue;
    paths[kelp_path_name(static_cast<kelp_path>(path))] = tally.paths[path];
  }
  return paths;
}

std::string as_json(const Tally& tally, const BenchOptions& options) {
  json about = {{"iterations", options.count},          {"size_per_op", options.size},
                {"successful_ops", tally.ok},           {"failed_ops", tally.failed},
                {"total_bytes", tally.bytes},           {"seconds", tally.seconds()},
                {"ops_per_sec", tally.per_second()},    {"bytes_per_sec", tally.bytes_per_second()},
                {"latency_us", latencies(tally.times)}, {"paths", paths_of(tally)}};
  if (!tally.first_failure.empty()) about["first_failure"] = tally.first_failure;
  return about.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string as_text(const Tally& tally, bool colour) {
  FactList list;
  list.add("reads", {std::to_string(tally.ok)});
  if (tally.failed != 0) {
    list.add("failed", {std::to_string(tally.failed), Tone::kBad});
    list.add("first failure", {printable(tally.first_failure)});
  }
  list.add("bytes", {human_bytes(tally.bytes)});
  list.add("per second", {fixed(tally.per_second(), 0) + " reads, " +
                          human_bytes(static_cast<std::uint64_t>(tally.bytes_per_second()))});
  add_latencies(list, tally.times);
  for (std::size_t path = 0; path < kPaths; ++path) {
    if (tally.paths[path] == 0) continue;
    list.add(std::string("by ") + kelp_path_name(static_cast<kelp_path>(path)),
             {std::to_string(tally.paths[path])});
  }
  return list.text(colour);
}

/// The value of an item of /config.
json setting(const json& config, const char* key) {
  for (const json& item : field(config, "items")) {
    if (field_text(item, "key") == key) return field(item, "value");
  }
  return nullptr;
}

}  // namespace

Outcome<void> run_ping(const CommonOptions& common, const PingOptions& options, bool colour) {
  const Clock::time_point start = Clock::now();
  Outcome<Session> session = Session::open(common, 4096);
  if (!session) return tl::unexpected(session.error());
  const std::uint64_t attach_ns = ns_between(start, Clock::now());
  const auto times = std::make_unique<Histogram>();
  for (std::uint64_t i = 0; i < options.count; ++i) {
    const Clock::time_point began = Clock::now();
    if (const auto done = session->ping(options.timeout_ms); !done) {
      return tl::unexpected(done.error());
    }
    times->record(ns_between(began, Clock::now()));
  }
  if (common.json) {
    const json about = {{"success", true},
                        {"round_trips", options.count},
                        {"attach_us", us(attach_ns)},
                        {"latency_us", latencies(*times)}};
    return write_stdout(about.dump(2) + "\n");
  }
  FactList list;
  list.add("round trips", {std::to_string(options.count)});
  list.add("attach", {fixed(us(attach_ns), 1) + " us"});
  add_latencies(list, *times);
  return write_stdout(list.text(colour));
}

Outcome<void> run_bench(const CommonOptions& common, const BenchOptions& options, bool colour) {
  if (options.fids.empty()) return fail(ExitCode::kUsage, "bench takes one file id or more");
  for (const std::string& fid : options.fids) {
    if (const auto known = canonical_fid(fid); !known) return tl::unexpected(known.error());
  }
  Outcome<Session> session = Session::open(common, static_cast<std::size_t>(options.size));
  if (!session) return tl::unexpected(session.error());
  const auto tally = std::make_unique<Tally>();
  const Clock::time_point start = Clock::now();
  Clock::time_point began = start;
  for (std::uint64_t i = 0; i < options.count; ++i) {
    count(*tally, session->read(options.fids[i % options.fids.size()], 0,
                                static_cast<std::uint32_t>(options.size), options.timeout_ms));
    const Clock::time_point now = Clock::now();
    tally->times.record(ns_between(began, now));
    began = now;
  }
  tally->took_ns = ns_between(start, began);
  Outcome<void> shown =
      write_stdout(common.json ? as_json(*tally, options) : as_text(*tally, colour));
  if (!shown || tally->failed == 0) return shown;
  return fail(ExitCode::kReadsFailed, "");
}

Outcome<void> run_capabilities(const CommonOptions& common, bool colour) {
  const Outcome<json> health = ask_control(common, "/health");
  if (!health) return tl::unexpected(health.error());
  const Outcome<json> config = ask_control(common, "/config");
  if (!config) return tl::unexpected(config.error());
  const Outcome<json> devices = ask_control(common, "/devices");
  if (!devices) return tl::unexpected(devices.error());
  const json& found = field(*devices, "devices");
  const json about = {{"version", field(*health, "version")},
                      {"library", kelp_version()},
                      {"workers", field(*health, "workers")},
                      {"max_clients", setting(*config, "client.max_clients")},
                      {"max_channels", setting(*config, "client.max_channels")},
                      {"max_data_bytes", setting(*config, "client.max_data_bytes")},
                      {"max_requests", setting(*config, "client.max_requests")},
                      {"sidecar", setting(*config, "sidecar.listen")},
                      {"mount_accepts", setting(*config, "sidecar.mount_accepts")},
                      {"rdma_devices", found.is_array() ? found.size() : 0}};
  if (common.json) return write_stdout(about.dump(2) + "\n");
  FactList list;
  for (const auto& [name, value] : about.items()) {
    list.add(name, {printable(value.is_string() ? value.get<std::string>() : value.dump())});
  }
  return write_stdout(list.text(colour));
}

}  // namespace kelp
