#include "control/gateway/circuit_breaker.h"

#include <doctest/doctest.h>

using kelp::CircuitBreaker;
using Failure = CircuitBreaker::Failure;
using State = CircuitBreaker::State;
using std::chrono::milliseconds;

namespace {

/// A breaker and a clock that goes on only when told to.
struct Scene {
  CircuitBreaker breaker;
  CircuitBreaker::Clock::time_point now{std::chrono::hours(1)};

  State state() const { return breaker.state(now); }
  bool may_try() { return breaker.may_try(now); }
  void fail(Failure failure, int times = 1) {
    for (int i = 0; i < times; ++i) breaker.failed(now, failure, "refused");
  }
  /// Lets the backoff pass and takes the one attempt.
  void half_open() {
    now = breaker.retry_at();
    REQUIRE(may_try());
  }
  milliseconds backoff() const {
    return std::chrono::duration_cast<milliseconds>(breaker.retry_at() - now);
  }
};

}  // namespace

TEST_CASE("a new breaker is closed, lets everything through and has nothing to say") {
  Scene scene;
  CHECK(scene.state() == State::kClosed);
  for (int i = 0; i < 100; ++i) CHECK(scene.may_try());
  CHECK(scene.breaker.reason().empty());
  CHECK_FALSE(scene.breaker.failing_since());
}

TEST_CASE("one failed connection, three silences or ten server errors open it, and no fewer") {
  const auto check = [](Failure failure, int most) {
    Scene scene;
    scene.fail(failure, most - 1);
    CHECK(scene.state() == State::kClosed);
    CHECK(scene.may_try());
    scene.fail(failure);
    CHECK(scene.state() == State::kOpen);
    CHECK_FALSE(scene.may_try());
  };
  check(Failure::kUnreachable, 1);
  check(Failure::kNoAnswer, 3);
  check(Failure::kServerError, 10);
}

TEST_CASE("a read with no other server left does not wait for the end of a long backoff") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  for (int i = 0; i < 8; ++i) {
    scene.half_open();
    scene.fail(Failure::kUnreachable);
  }
  REQUIRE(scene.backoff() == CircuitBreaker::kLongestBackoff);
  CHECK_FALSE(scene.breaker.may_try_at_last(scene.now));
  scene.now += CircuitBreaker::kShortestBackoff;
  CHECK_FALSE(scene.may_try());
  CHECK(scene.breaker.may_try_at_last(scene.now));
  CHECK(scene.state() == State::kHalfOpen);
  CHECK_FALSE(scene.breaker.may_try_at_last(scene.now));  // one at a time
  scene.fail(Failure::kUnreachable);
  CHECK(scene.backoff() == CircuitBreaker::kLongestBackoff);
  CHECK_FALSE(scene.breaker.may_try_at_last(scene.now));
}

TEST_CASE("a success between failures starts both counts again") {
  Scene scene;
  scene.fail(Failure::kNoAnswer, 2);
  scene.fail(Failure::kServerError, 9);
  scene.breaker.succeeded(scene.now);
  CHECK(scene.breaker.reason().empty());
  CHECK_FALSE(scene.breaker.failing_since());
  scene.fail(Failure::kNoAnswer, 2);
  scene.fail(Failure::kServerError, 9);
  CHECK(scene.state() == State::kClosed);
  scene.fail(Failure::kNoAnswer);
  CHECK(scene.state() == State::kOpen);
}

TEST_CASE("failures of two kinds in turns open it as well") {
  Scene scene;
  for (int i = 0; i < 3; ++i) {
    CHECK(scene.state() == State::kClosed);
    scene.fail(Failure::kServerError);
    scene.fail(Failure::kNoAnswer);
  }
  CHECK(scene.state() == State::kOpen);
}

TEST_CASE("an open breaker refuses until its backoff has passed, then lets one attempt through") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  CHECK(scene.backoff() == milliseconds(100));
  scene.now += milliseconds(99);
  CHECK(scene.state() == State::kOpen);
  CHECK_FALSE(scene.may_try());
  scene.now += milliseconds(1);
  CHECK(scene.state() == State::kHalfOpen);
  CHECK(scene.may_try());
  CHECK(scene.state() == State::kHalfOpen);
  CHECK_FALSE(scene.may_try());
  scene.now += std::chrono::hours(1);
  CHECK_FALSE(scene.may_try());
}

TEST_CASE("a half-open breaker is closed by a success") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  scene.half_open();
  scene.breaker.succeeded(scene.now);
  CHECK(scene.state() == State::kClosed);
  CHECK(scene.may_try());
  CHECK(scene.may_try());
  CHECK(scene.breaker.reason().empty());
}

TEST_CASE("each failure of a half-open breaker doubles the backoff, up to five seconds") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  for (const int expected_ms : {200, 400, 800, 1600, 3200, 5000, 5000, 5000}) {
    scene.half_open();
    scene.fail(Failure::kServerError);  // any failure will do
    CHECK(scene.state() == State::kOpen);
    CHECK(scene.backoff() == milliseconds(expected_ms));
  }
}

TEST_CASE("after a success the backoff starts at its shortest again") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  scene.half_open();
  scene.fail(Failure::kUnreachable);
  scene.half_open();
  scene.breaker.succeeded(scene.now);
  scene.fail(Failure::kUnreachable);
  CHECK(scene.backoff() == milliseconds(100));
}

TEST_CASE("an abandoned attempt leaves the breaker half-open for another one") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  scene.half_open();
  scene.breaker.abandoned();
  CHECK(scene.state() == State::kHalfOpen);
  CHECK(scene.may_try());
  CHECK_FALSE(scene.may_try());
  scene.fail(Failure::kNoAnswer);
  CHECK(scene.backoff() == milliseconds(200));
}

TEST_CASE("an abandoned attempt means nothing to a closed or an open breaker") {
  Scene scene;
  scene.fail(Failure::kNoAnswer, 2);
  scene.breaker.abandoned();
  CHECK(scene.state() == State::kClosed);
  scene.fail(Failure::kNoAnswer);
  scene.breaker.abandoned();
  CHECK(scene.state() == State::kOpen);
  CHECK_FALSE(scene.may_try());
}

TEST_CASE("attempts under way when it opened do not lengthen the backoff when they fail too") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  const auto retry_at = scene.breaker.retry_at();
  scene.now += milliseconds(50);
  scene.fail(Failure::kUnreachable, 15);
  CHECK(scene.breaker.retry_at() == retry_at);
  scene.now = retry_at;
  scene.fail(Failure::kUnreachable);
  CHECK(scene.may_try());
}

TEST_CASE("an attempt under way when it opened closes it when it succeeds") {
  Scene scene;
  scene.fail(Failure::kUnreachable);
  scene.breaker.succeeded(scene.now);
  CHECK(scene.state() == State::kClosed);
}

TEST_CASE("the reason is of the last failure, the time of the first") {
  Scene scene;
  const auto before = std::chrono::system_clock::now();
  scene.breaker.failed(scene.now, Failure::kNoAnswer, "reset");
  const auto since = scene.breaker.failing_since();
  REQUIRE(since);
  CHECK(*since >= before);
  CHECK(*since <= std::chrono::system_clock::now());
  scene.breaker.failed(scene.now, Failure::kUnreachable, "Connection refused");
  scene.breaker.failed(scene.now, Failure::kUnreachable, "No route to host");
  CHECK(scene.breaker.reason() == "No route to host");
  CHECK(scene.breaker.failing_since() == since);
}

TEST_CASE("breaker states have names") {
  CHECK(std::string(kelp::breaker_state_name(State::kClosed)) == "closed");
  CHECK(std::string(kelp::breaker_state_name(State::kOpen)) == "open");
  CHECK(std::string(kelp::breaker_state_name(State::kHalfOpen)) == "half-open");
}
