// What the command line of kelpctl asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace kelp {

/// Of every command.
struct CommonOptions {
  std::optional<std::string> run_dir;  ///< --run-dir; else $KELP_RUN_DIR; else /run/kelp
  bool json = false;
};

struct ReadOptions {
  std::string fid;
  std::uint64_t offset = 0;
  std::optional<std::uint64_t> size;  ///< bytes; none: to the end
  std::string output;                 ///< empty or "-": stdout
  std::uint32_t timeout_ms = 5000;    ///< of each request
  std::string token;                  ///< for a volume server that wants one; empty: none
  std::string volume_server;          ///< asked first, if the daemon allows it; empty: its choice
};

struct TraceOptions {
  std::string fid;
  std::uint32_t timeout_ms = 5000;  ///< of the read
};

struct LoadgenOptions {
  std::vector<std::string> fids;       ///< in any textual form
  std::string fids_file;               ///< one per line instead; "-": stdin
  std::uint64_t depth = 1;             ///< reads in flight, of each worker
  std::uint64_t size = 1 << 20;        ///< bytes of a buffer; longer needles are cut
  double duration_s = 10;              ///< the longest
  std::optional<std::uint64_t> count;  ///< requests in all; none: as many as there is time for
  std::uint64_t timeout_ms = 5000;     ///< of each request
};

/// The longest the daemon makes load for at once.
constexpr double kMaxLoadS = 600;

struct PingOptions {
  std::uint64_t count = 10;
  std::uint32_t timeout_ms = 5000;  ///< of each round trip
};

struct BenchOptions {
  std::vector<std::string> fids;    ///< in any textual form
  std::uint64_t count = 1000;       ///< reads
  std::uint64_t size = 4096;        ///< bytes of the buffer; of a longer needle the first are read
  std::uint32_t timeout_ms = 5000;  ///< of each read
};

struct StatsOptions {
  std::uint32_t watch_s = 0;  ///< 0: once
};

struct DoctorOptions {
  std::vector<std::string> volume_dirs;  ///< besides those of the daemon
};

/// The longest timeout that fits kelp_request.timeout_us.
constexpr std::uint32_t kMaxTimeoutMs = 3600000;

}  // namespace kelp
