// What the sidecar tells in JSON and HTML, in the words the scripts of the old sidecar look for.
// Cold; any thread. docs/api.md names the fields.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "shm_ring/kelp.h"
#include "sidecar/answer_head.h"
#include "sidecar/counters.h"
#include "sidecar/exchange.h"
#include "sidecar/options.h"

namespace kelp::sidecar {

constexpr std::string_view kJsonType = "application/json";
constexpr std::string_view kHtmlType = "text/html; charset=utf-8";

/// How it is, for the pages that say so.
struct Condition {
  bool attached = false;  ///< to the rings: /read can answer
  const Facts* facts = nullptr;
  const Counters* counters = nullptr;
  MountAccepts mount_accepts = MountAccepts::kDataplane;
  std::uint32_t open_connections = 0;
  std::uint32_t max_connections = 0;
  bool offers_files = false;  ///< temporary ones
};

/// {"error":"..."}
std::string error_json(std::string_view sentence);

/// "healthy" is what a mount asks for, once.
std::string health_json(const Condition& condition);
bool is_healthy(const Condition& condition);
std::string stats_json(const Condition& condition);
std::string capabilities_json(const Condition& condition);
std::string front_page(const Condition& condition);

std::string ping_json(std::chrono::nanoseconds round_trip);
/// {"success":true,"temp_file":"..."}
std::string cleanup_json(std::string_view temp_file);
std::string benchmark_json(const Exchange& exchange, std::chrono::nanoseconds took);

struct ReadSummary {
  kelp_fid fid;
  std::string_view bytes;
  std::string_view source;
  bool over_rdma;
  std::chrono::nanoseconds took;
};
std::string read_json(const ReadSummary& read);

/// X-RDMA-Session-ID and its like.
void write_rdma_lines(AnswerHead& head, std::chrono::nanoseconds took, std::uint64_t bytes);

/// As Go prints a duration: "1.5ms", "12.345µs", "2.1s".
std::string go_duration(std::chrono::nanoseconds duration);

}  // namespace kelp::sidecar
