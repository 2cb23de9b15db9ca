#include "sidecar/pages.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>

namespace kelp::sidecar {
namespace {

using nlohmann::json;
using Seconds = std::chrono::duration<double>;

std::string text_of(const json& value) {
  // Compact: a script greps "rdma_enabled":true without a space.
  return value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string timestamp() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  ::gmtime_r(&now, &parts);
  std::array<char, 32> text;
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts)};
}

std::string fixed(double value, int digits) {
  std::array<char, 48> text;
  const int length = std::snprintf(text.data(), text.size(), "%.*f", digits, value);
  return {text.data(), static_cast<std::size_t>(std::clamp(length, 0, 47))};
}

std::string_view accepts_name(MountAccepts accepts) {
  switch (accepts) {
    case MountAccepts::kDataplane:
      return "dataplane";
    case MountAccepts::kRdma:
      return "rdma";
    case MountAccepts::kAny:
      return "any";
  }
  return "?";
}

/// relaxed: words about how things are; they order nothing.
bool is_set(const std::atomic<bool>& fact) {
  return fact.load(std::memory_order_relaxed);
}

/// Whether an answer can carry the mark that makes a mount use it.
bool marks_anything(const Condition& condition) {
  return condition.mount_accepts != MountAccepts::kRdma || is_set(condition.facts->verbs_possible);
}

std::uint64_t sum(const std::array<Counter, Counters::kPaths>& counters) {
  std::uint64_t total = 0;
  for (const Counter& counter : counters) total += counter.value();
  return total;
}

json by_path(const std::array<Counter, Counters::kPaths>& counters) {
  json paths;
  for (std::size_t i = 1; i < Counters::kPaths; ++i) {
    paths[kelp_path_name(static_cast<kelp_path>(i))] = counters[i].value();
  }
  return paths;
}

json capabilities(const Condition& condition) {
  return {{"version", kelp_version()},
          {"device_name", is_set(condition.facts->verbs_possible) ? "rdma" : "none"},
          {"vendor_id", 0},
          {"max_sessions", condition.max_connections},
          {"max_transfer_size", Buffers::kLargest},
          {"active_sessions", condition.open_connections},
          {"real_rdma", is_set(condition.facts->verbs_possible)},
          {"port_gid", ""},
          {"port_lid", 0},
          {"supported_auth", json::array({"none", "jwt"})}};
}

}  // namespace

std::string error_json(std::string_view sentence) {
  return text_of({{"error", sentence}});
}

std::string cleanup_json(std::string_view temp_file) {
  return text_of({{"success", true}, {"temp_file", temp_file}});
}

bool is_healthy(const Condition& condition) {
  return condition.attached && is_set(condition.facts->serving);
}

std::string health_json(const Condition& condition) {
  const char* status = "healthy";
  if (!condition.attached) status = "starting";
  if (!is_set(condition.facts->serving)) status = "disabled";
  return text_of({{"status", status},
                  {"rdma",
                   {{"enabled", marks_anything(condition)},
                    {"connected", is_set(condition.facts->verbs_connected)},
                    {"zerocopy_enabled", condition.offers_files},
                    {"pooling_enabled", true},
                    {"mount_accepts", accepts_name(condition.mount_accepts)}}},
                  {"timestamp", timestamp()}});
}

std::string stats_json(const Condition& condition) {
  const Counters& counters = *condition.counters;
  return text_of({{"enabled", marks_anything(condition)},
                  {"connected", is_set(condition.facts->verbs_connected)},
                  {"rdma_enabled", marks_anything(condition)},
                  {"capabilities", capabilities(condition)},
                  {"client_type", "kelp"},
                  {"mount_accepts", accepts_name(condition.mount_accepts)},
                  {"total_reads", sum(counters.reads)},
                  {"total_bytes", sum(counters.bytes)},
                  {"temp_files", counters.temp_offered.value()},
                  {"rdma_reads", counters.reads[KELP_PATH_VERBS].value()},
                  {"http_fallbacks", counters.reads[KELP_PATH_HTTP].value()},
                  {"reads", by_path(counters.reads)},
                  {"bytes", by_path(counters.bytes)},
                  {"requests", counters.requests.value()},
                  {"refused", counters.refused.value()},
                  {"failed", counters.failed.value()},
                  {"broken_off", counters.broken_off.value()},
                  {"connections",
                   {{"open", condition.open_connections},
                    {"accepted", counters.connections.value()},
                    {"shed", counters.shed.value()},
                    {"timed_out", counters.timed_out.value()}}},
                  {"timestamp", timestamp()}});
}

std::string capabilities_json(const Condition& condition) {
  return text_of(capabilities(condition));
}

std::string front_page(const Condition& condition) {
  return "<!DOCTYPE html>\n<html><head><title>Kelp</title></head><body><h1>Kelp " +
         std::string(kelp_version()) + "</h1>\n<p>Reads SeaweedFS needles. Status: " +
         (is_healthy(condition) ? "healthy" : "not healthy") +
         ".</p>\n<ul>\n"
         "<li><a href=\"/health\">/health</a></li>\n"
         "<li><a href=\"/stats\">/stats</a></li>\n"
         "<li>/read?file_id=3,01637037d6&amp;offset=0&amp;size=4096</li>\n"
         "<li>/benchmark?file_id=3,01637037d6&amp;iterations=10&amp;size=4096</li>\n"
         "</ul></body></html>\n";
}

std::string ping_json(std::chrono::nanoseconds round_trip) {
  return text_of({{"success", true},
                  {"engine_latency", go_duration(round_trip)},
                  {"total_latency", go_duration(round_trip)},
                  {"timestamp", timestamp()}});
}

std::string benchmark_json(const Exchange& exchange, std::chrono::nanoseconds took) {
  const double seconds = std::max(Seconds(took).count(), 1e-9);
  const auto each = took / std::max(exchange.done, 1u);
  const double megabytes = static_cast<double>(exchange.bytes_read) / (1 << 20);
  return text_of({{"benchmark_results",
                   {{"iterations", exchange.done},
                    {"size_per_op", exchange.size},
                    {"total_duration", go_duration(took)},
                    {"successful_ops", exchange.ok},
                    {"failed_ops", exchange.done - exchange.ok},
                    {"rdma_ops", exchange.over_verbs},
                    {"http_ops", exchange.over_http},
                    {"avg_latency", go_duration(each)},
                    {"throughput_mbps", fixed(megabytes / seconds, 2)},
                    {"ops_per_sec", fixed(exchange.ok / seconds, 1)},
                    {"total_bytes", exchange.bytes_read}}},
                  {"timestamp", timestamp()}});
}

std::string read_json(const ReadSummary& read) {
  constexpr std::size_t kPreviewBytes = 32;
  std::array<char, 16> cookie;
  std::snprintf(cookie.data(), cookie.size(), "0x%x", read.fid.cookie);
  std::string preview;
  for (const char byte : read.bytes.substr(0, kPreviewBytes)) {
    std::array<char, 4> digits;
    std::snprintf(digits.data(), digits.size(), "%02x", static_cast<unsigned char>(byte));
    preview += digits.data();
  }
  return text_of({{"success", true},
                  {"volume_id", read.fid.volume},
                  {"needle_id", read.fid.needle},
                  {"cookie", cookie.data()},
                  {"is_rdma", read.over_rdma},
                  {"source", read.source},
                  {"session_id", ""},
                  {"duration", go_duration(read.took)},
                  {"data_size", read.bytes.size()},
                  {"timestamp", timestamp()},
                  {"use_temp_file", false},
                  {"temp_file", ""},
                  {"data_preview", preview}});
}

void write_rdma_lines(AnswerHead& head, std::chrono::nanoseconds took, std::uint64_t bytes) {
  static std::atomic<std::uint64_t> sessions{0};
  const double seconds = std::max(Seconds(took).count(), 1e-9);
  // relaxed: a name that is not given twice.
  const std::uint64_t session = sessions.fetch_add(1, std::memory_order_relaxed) + 1;
  head.line("X-RDMA-Session-ID", "kelp-" + std::to_string(session));
  head.line("X-RDMA-Duration", go_duration(took));
  head.line("X-RDMA-Transfer-Rate", fixed(static_cast<double>(bytes) / (1 << 20) / seconds, 2));
  head.line("X-RDMA-Bytes-Read", bytes);
}

std::string go_duration(std::chrono::nanoseconds duration) {
  const auto ns = static_cast<double>(duration.count());
  const auto with_unit = [](double value, int digits, const char* unit) {
    std::string text = fixed(value, digits);
    while (text.find('.') != std::string::npos && (text.back() == '0' || text.back() == '.')) {
      const bool dot = text.back() == '.';
      text.pop_back();
      if (dot) break;
    }
    return text + unit;
  };
  if (ns < 1e3) return with_unit(ns, 0, "ns");
  if (ns < 1e6) return with_unit(ns / 1e3, 3, "µs");
  if (ns < 1e9) return with_unit(ns / 1e6, 6, "ms");
  return with_unit(ns / 1e9, 9, "s");
}

}  // namespace kelp::sidecar
