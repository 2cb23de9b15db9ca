// Keeps a kind of log line that strangers can cause from filling the log: so many at once, then so
// many a second, and a count of those that were left out. Control thread.
//
//   static LogLimiter limiter("client refused");
//   if (limiter.allow()) log_info("client refused", {...});
#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

#include "control/log.h"

namespace kelp {

class LogLimiter {
 public:
  using Clock = std::chrono::steady_clock;

  /// `event` names the kind of line where its count is told; a literal. `level` is theirs.
  explicit LogLimiter(std::string_view event, LogLevel level = LogLevel::kInfo, double burst = 20,
                      double per_second = 1);
  ~LogLimiter();
  LogLimiter(const LogLimiter&) = delete;
  LogLimiter& operator=(const LogLimiter&) = delete;

  /// Whether to write this line; else it is counted, unless nobody wants lines of its level.
  bool allow(Clock::time_point now = Clock::now());

  /// Lines left out since they were last told; told now.
  std::uint64_t take_suppressed() noexcept;

  std::string_view event() const noexcept { return event_; }

 private:
  const std::string_view event_;
  const LogLevel level_;
  const double burst_;
  const double per_second_;
  double tokens_;
  Clock::time_point filled_;
  std::uint64_t suppressed_ = 0;
};

/// A line for each kind of which some were left out; call it now and then.
void log_suppressed();

}  // namespace kelp
