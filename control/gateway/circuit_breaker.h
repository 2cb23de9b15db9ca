// Keeps reads away from a server that fails, and finds out when it is well again.
//
//   closed ──failures──► open ──backoff passed──► half-open (one attempt) ──success──► closed
//                         ▲                               │
//                         └────────── failure: twice the backoff
//
// Where no other server is left it is half-open kShortestBackoff after the last failure, whatever
// the backoff has grown to. Attempts that began before it opened and fail afterwards tell nothing
// new: they neither lengthen the backoff nor put it off. One that succeeds closes it. One per path
// and server. Gateway thread only; decides by the caller's clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace kelp {

class CircuitBreaker {
 public:
  using Clock = std::chrono::steady_clock;

  enum class State : std::uint8_t { kClosed, kOpen, kHalfOpen };

  enum class Failure : std::uint8_t {
    kUnreachable,  ///< no connection: one is enough to open
    kNoAnswer,     ///< connected, and then timed out or reset: three in a row open
    kServerError,  ///< a 5xx, or nonsense, that may be about one needle: ten in a row open
  };

  /// Whether an attempt may be made now. When half-open, true makes this the one attempt: it must
  /// end in succeeded(), failed() or abandoned().
  bool may_try(Clock::time_point now) noexcept;
  /// The same for a read that has no other server left: does not wait for the end of a long
  /// backoff, as a server that was away for long may be back.
  bool may_try_at_last(Clock::time_point now) noexcept;
  void succeeded(Clock::time_point now);
  void failed(Clock::time_point now, Failure failure, std::string reason);
  /// The attempt ended without telling anything about the server.
  void abandoned() noexcept;

  State state(Clock::time_point now) const noexcept;
  const std::string& reason() const noexcept;  ///< of the last failure; "" after a success
  /// When the failures that are not over began.
  std::optional<std::chrono::system_clock::time_point> failing_since() const noexcept;
  /// When an open breaker lets one attempt through.
  Clock::time_point retry_at() const noexcept;

  static constexpr std::chrono::milliseconds kShortestBackoff{100};
  static constexpr std::chrono::milliseconds kLongestBackoff{5000};

 private:
  void open(Clock::time_point now) noexcept;

  bool open_ = false;    // or half-open: `retry_at_` tells
  bool trying_ = false;  // half-open, and its one attempt is under way
  int no_answers_ = 0;   // in a row, while closed; a 5xx between two does not end the row
  int server_errors_ = 0;
  std::chrono::milliseconds backoff_{0};  // the last one; 0 after a success
  Clock::time_point opened_at_{};
  Clock::time_point retry_at_{};
  std::string reason_;
  std::optional<std::chrono::system_clock::time_point> failing_since_;
};

/// "closed", "open", "half-open"
const char* breaker_state_name(CircuitBreaker::State state) noexcept;

}  // namespace kelp
