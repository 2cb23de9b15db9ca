#include "control/gateway/circuit_breaker.h"

#include <algorithm>
#include <utility>

namespace kelp {
namespace {

constexpr int kMostNoAnswers = 3;
constexpr int kMostServerErrors = 10;

}  // namespace

bool CircuitBreaker::may_try(Clock::time_point now) noexcept {
  if (!open_) return true;
  if (trying_ || now < retry_at_) return false;
  trying_ = true;
  return true;
}

bool CircuitBreaker::may_try_at_last(Clock::time_point now) noexcept {
  if (open_ && now >= opened_at_ + kShortestBackoff) retry_at_ = std::min(retry_at_, now);
  return may_try(now);
}

void CircuitBreaker::succeeded(Clock::time_point) {
  *this = CircuitBreaker();
}

void CircuitBreaker::failed(Clock::time_point now, Failure failure, std::string reason) {
  if (!failing_since_) failing_since_ = std::chrono::system_clock::now();
  reason_ = std::move(reason);
  if (open_) {
    if (trying_) open(now);
    return;
  }
  if (failure == Failure::kNoAnswer) ++no_answers_;
  if (failure == Failure::kServerError) ++server_errors_;
  if (failure == Failure::kUnreachable || no_answers_ >= kMostNoAnswers ||
      server_errors_ >= kMostServerErrors) {
    open(now);
  }
}

void CircuitBreaker::abandoned() noexcept {
  trying_ = false;
}

void CircuitBreaker::open(Clock::time_point now) noexcept {
  open_ = true;
  trying_ = false;
  backoff_ = std::clamp(backoff_ * 2, kShortestBackoff, kLongestBackoff);
  opened_at_ = now;
  retry_at_ = now + backoff_;
}

CircuitBreaker::State CircuitBreaker::state(Clock::time_point now) const noexcept {
  if (!open_) return State::kClosed;
  return trying_ || now >= retry_at_ ? State::kHalfOpen : State::kOpen;
}

const std::string& CircuitBreaker::reason() const noexcept {
  return reason_;
}

std::optional<std::chrono::system_clock::time_point> CircuitBreaker::failing_since()
    const noexcept {
  return failing_since_;
}

CircuitBreaker::Clock::time_point CircuitBreaker::retry_at() const noexcept {
  return retry_at_;
}

const char* breaker_state_name(CircuitBreaker::State state) noexcept {
  switch (state) {
    case CircuitBreaker::State::kClosed:
      return "closed";
    case CircuitBreaker::State::kOpen:
      return "open";
    case CircuitBreaker::State::kHalfOpen:
      return "half-open";
  }
  return "unknown";
}

}  // namespace kelp
