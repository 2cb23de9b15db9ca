// Where volumes are: asks the masters, and remembers.
//
// One question per volume is under way at a time, whoever asks meanwhile waits for it. An answer is
// believed for `ttl`; in the second half of that it is asked again while the old one serves. "No
// such volume" is believed for a second. When no master answers, the last answer serves on, however
// old. A master that fails is asked last. Gateway thread only.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "control/gateway/gateway_report.h"
#include "control/gateway/location.h"
#include "control/http_client.h"
#include "shm_ring/file_id.h"

namespace kelp {

class LookupCache {
 public:
  using Clock = std::chrono::steady_clock;

  enum class State : std::uint8_t {
    kKnown,          ///< `locations` has at least one, each once
    kUnknownVolume,  ///< a master answered, and knows no such volume
    kNoMaster,       ///< none answered, and nothing was known before
  };
  struct Answer {
    State state = State::kNoMaster;
    std::vector<Location> locations;
    Clock::time_point asked{};  ///< when the question went out that this answers
    std::string error;          ///< unless kKnown: what to tell people
  };
  using Done = std::function<void(const Answer&)>;
  /// HttpClient::ask(), or a stand-in of it.
  using Ask = std::function<void(HttpClient::Request, std::function<void(HttpAnswer)>)>;

  struct Options {
    std::vector<std::string> masters;  ///< host:port, or a URL
    bool https = false;                ///< of masters without a scheme
    std::chrono::milliseconds ttl{10000};
    std::chrono::milliseconds master_timeout{1000};  ///< then the next one is asked
    std::uint32_t max_volumes = 65536;  ///< remembered; beyond, the longest unused goes
  };

  LookupCache(Options options, Ask ask);

  /// Calls `done` once: at once if what is known is young enough and was asked at `not_before` or
  /// later, else when a master has answered or all of them have failed.
  void find(VolumeId volume, Clock::time_point now, Clock::time_point not_before, Done done);

  std::vector<MasterReport> masters() const;
  std::vector<RemoteVolumeReport> volumes(Clock::time_point now) const;
  std::uint64_t lookups() const noexcept;
  std::uint64_t coalesced() const noexcept;

 private:
  // The owner of lookup_cache.cc adds what it needs.
};

/// The body of an answer to /dir/lookup. Servers that repeat (EC volumes) are named once; entries
/// whose url is no server address are left out. Errors: not JSON, not an object.
Result<LookupCache::Answer> parse_lookup(int http_status, const std::string& body);

}  // namespace kelp
