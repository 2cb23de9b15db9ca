#include "control/worker_watch.h"

#include <doctest/doctest.h>

using kelp::WorkerWatch;
using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {
const WorkerWatch::Time kStart{std::chrono::hours(1)};
}

TEST_CASE("a service is alive while every worker turns, and is said so in time") {
  WorkerWatch watch(seconds(3));
  REQUIRE(watch.period() == milliseconds(1000));
  CHECK(watch.may_say_alive(kStart, {1, 1}));
  CHECK_FALSE(watch.may_say_alive(kStart + milliseconds(999), {2, 2}));
  CHECK(watch.may_say_alive(kStart + milliseconds(1000), {2, 2}));
}

TEST_CASE("one worker that stands still is enough for silence, until it turns again") {
  WorkerWatch watch(seconds(3));
  REQUIRE(watch.may_say_alive(kStart, {5, 5}));
  for (int second = 1; second < 10; ++second) {
    CHECK_FALSE(watch.may_say_alive(kStart + seconds(second), {5, 5ull + second}));
  }
  CHECK(watch.may_say_alive(kStart + seconds(10), {6, 99}));
}

TEST_CASE("without a watchdog nothing is said") {
  WorkerWatch watch(std::nullopt);
  CHECK_FALSE(watch.period());
  CHECK_FALSE(watch.may_say_alive(kStart, {1}));
}
