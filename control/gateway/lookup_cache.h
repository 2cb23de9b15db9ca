// Where volumes are: asks the masters, and remembers.
//
// One question per volume is under way at a time, whoever asks meanwhile waits for it. An answer is
// believed for `ttl`; in the second half of that it is asked again while the old one serves. "No
// such volume" is believed for a second, not at all within a minute after the volume was known (a
// master that is started anew knows nothing for a while), and only if every master that answers
// says so: one that has just started knows little. When no master answers, the last answer serves
// on, however old; it is asked again behind it, once a second. A master that fails is asked last.
// Gateway thread only.
//
//   find ──► young enough: at once ──► in its second half: and a flight
//        └─► else waits ──► a flight: master ──failed, unknown──► next master ──► ... ──► answers
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/gateway/gateway_report.h"
#include "control/gateway/location.h"
#include "control/gateway/master_list.h"
#include "control/http_client.h"
#include "shm_ring/file_id.h"

namespace kelp {

/// Of the body of an answer to /dir/lookup; an honest one has a few hundred bytes.
constexpr std::size_t kMaxLookupBytes = std::size_t{1} << 20;

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

  /// Whatever is behind `ask` calls nothing back after the cache is gone: HttpClient goes first.
  LookupCache(Options options, Ask ask);
  LookupCache(const LookupCache&) = delete;
  LookupCache& operator=(const LookupCache&) = delete;

  /// `done` may call find(). Calls it once: at once if what is known is young enough and was asked
  /// at `not_before` or later, else when a master has answered or all of them have failed.
  void find(VolumeId volume, Clock::time_point now, Clock::time_point not_before, Done done);

  std::vector<MasterReport> masters() const;
  std::vector<RemoteVolumeReport> volumes(Clock::time_point now) const;
  std::uint64_t lookups() const noexcept;
  std::uint64_t coalesced() const noexcept;

 private:
  struct Waiter {
    Clock::time_point earliest;  // its answer must have been asked then or later
    Done done;
  };
  /// A question under way, to one master after the other.
  struct Flight {
    explicit Flight(Clock::time_point now) : started(now) {}
    Clock::time_point started;
    std::uint64_t question = 0;     // the one that is to be answered next
    std::vector<std::size_t> left;  // masters to ask, the next one at the end
    std::optional<Answer> unknown;  // of the first master that knows no such volume
    std::string failures;           // "URL: why; URL: why"
  };
  struct Entry {
    std::shared_ptr<const Answer> answer;     // the last; never kNoMaster where one was known
    std::optional<Clock::time_point> failed;  // the start of the last flight, if no master answered
    std::optional<Flight> flight;
    std::vector<Waiter> waiters;  // none without a flight
    std::uint64_t used = 0;       // the number of the last find() of it
  };

  Entry& use(VolumeId volume);
  std::shared_ptr<const Answer> usable(const Entry& entry, Clock::time_point now,
                                       Clock::time_point not_before) const;
  bool wants_refresh(const Entry& entry, Clock::time_point now) const;
  void launch(VolumeId volume, Entry& entry, Clock::time_point started);
  void ask_next(VolumeId volume, Entry& entry);
  void take(VolumeId volume, std::size_t master, std::uint64_t question, const HttpAnswer& answer);
  void land_without_location(VolumeId volume, Entry& entry);
  void land(VolumeId volume, Entry& entry, Answer answer);
  static std::vector<Done> take_ready(Entry& entry, Clock::time_point started);
  static std::shared_ptr<const Answer> keep(Entry& entry, Answer answer);
  void trim();

  Options options_;
  Ask ask_;
  MasterList masters_;
  std::unordered_map<VolumeId, Entry> entries_;  // one with a flight stays
  std::map<std::uint64_t, VolumeId> idle_;  // by `used`: entries without a flight may be forgotten
  std::uint64_t uses_ = 0;
  std::uint64_t questions_ = 0;
  std::uint64_t coalesced_ = 0;
};

/// An answer to /dir/lookup. Servers that repeat (EC volumes) are named once, as
/// ServerAddress::text() writes them; entries whose url is no server address are left out.
/// Errors: a status but 200 and 404, more than 1 MiB, not JSON, not an object, a 404 without an
/// error, a list of servers that is none or has no usable entry.
Result<LookupCache::Answer> parse_lookup(int http_status, const std::string& body);

}  // namespace kelp
