// What the gateway tells people about the world it reads from: a copy, taken at once.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "control/gateway/location.h"

namespace kelp {

using WallTime = std::chrono::system_clock::time_point;

struct MasterReport {
  std::string url;             ///< as configured
  std::uint64_t asked = 0;     ///< look-ups sent to it
  std::uint64_t failures = 0;  ///< of those: no answer, or one that makes no sense
  std::optional<WallTime> last_answer;
  std::optional<WallTime> failing_since;
  std::string failure;  ///< the last one; "" while it answers
};

/// One volume server by one path.
struct RemoteServerReport {
  std::string server;   ///< "10.0.0.1:8080"
  std::string path;     ///< "http"
  std::string breaker;  ///< "closed", "open", "half-open"
  std::string reason;   ///< why it is not closed, or what failed last; ""
  std::optional<WallTime> failing_since;
  std::uint64_t reads = 0;     ///< attempts that were answered, whatever the answer
  std::uint64_t failures = 0;  ///< attempts that were not, or make no sense
  std::uint64_t bytes = 0;     ///< payload bytes delivered
  std::uint64_t p50_ns = 0;    ///< of answered attempts
  std::uint64_t p99_ns = 0;
};

/// A volume somebody asked for that is not read from this host's files.
struct RemoteVolumeReport {
  std::uint32_t id = 0;
  bool known = false;  ///< false: the master knows no such volume, or none could be asked
  std::string error;   ///< why not known
  double age_s = 0;    ///< since a master said so
  std::vector<Location> locations;
};

struct GatewayCounters {
  std::uint64_t requests = 0;         ///< handed over by workers
  std::uint64_t answered = 0;         ///< of those, with KELP_OK
  std::uint64_t failed = 0;           ///< with anything else
  std::uint64_t in_flight = 0;        ///< now
  std::uint64_t retries = 0;          ///< attempts after the first
  std::uint64_t retries_refused = 0;  ///< not made: the retry budget was spent
  std::uint64_t cancelled = 0;        ///< given up since the client was gone
  std::uint64_t servers_refused = 0;  ///< volume servers named by a caller and not allowed
  std::uint64_t redirects_refused = 0;
  std::uint64_t lookups = 0;            ///< sent to masters
  std::uint64_t lookups_coalesced = 0;  ///< reads that waited for one under way
};

struct GatewayReport {
  std::vector<MasterReport> masters;        ///< as configured, in order
  std::vector<RemoteServerReport> servers;  ///< by name
  std::vector<RemoteVolumeReport> volumes;  ///< by id
  GatewayCounters counters;
};

}  // namespace kelp
