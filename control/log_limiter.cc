#include "control/log_limiter.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace kelp {
namespace {

/// Every limiter there is: their lines are far apart in the code, their counts are told together.
std::vector<LogLimiter*>& all_limiters() {
  static std::vector<LogLimiter*> limiters;
  return limiters;
}

}  // namespace

LogLimiter::LogLimiter(std::string_view event, LogLevel level, double burst, double per_second)
    : event_(event), level_(level), burst_(burst), per_second_(per_second), tokens_(burst) {
  all_limiters().push_back(this);
}

LogLimiter::~LogLimiter() {
  std::erase(all_limiters(), this);
}

bool LogLimiter::allow(Clock::time_point now) {
  if (!log_enabled(level_)) return false;
  if (filled_ != Clock::time_point{} && now > filled_) {
    const double passed_s = std::chrono::duration<double>(now - filled_).count();
    tokens_ = std::min(burst_, tokens_ + passed_s * per_second_);
  }
  filled_ = std::max(filled_, now);
  if (tokens_ < 1) {
    ++suppressed_;
    return false;
  }
  tokens_ -= 1;
  return true;
}

std::uint64_t LogLimiter::take_suppressed() noexcept {
  return std::exchange(suppressed_, 0);
}

void log_suppressed() {
  for (LogLimiter* limiter : all_limiters()) {
    const std::uint64_t count = limiter->take_suppressed();
    if (count == 0) continue;
    log_warning("log lines were left out",
                {{"event", std::string(limiter->event())}, {"count", std::to_string(count)}});
  }
}

}  // namespace kelp
