#include "dataplane/wire/request_slots.h"

#include <doctest/doctest.h>

#include <set>

using namespace kelp::wire;
using Verdict = GatewaySlots::Verdict;

TEST_CASE("as many requests as credits, each in a slot of its own") {
  GatewaySlots slots(3);
  std::set<std::uint16_t> taken;
  for (std::uint32_t owner = 10; owner < 13; ++owner) taken.insert(slots.take(owner)->slot);
  CHECK(taken == std::set<std::uint16_t>{0, 1, 2});
  CHECK_FALSE(slots.take(13));
  CHECK(slots.in_flight() == 3);
  slots.release(1);
  CHECK(slots.free() == 1);
  CHECK(slots.take(14)->slot == 1);
}

TEST_CASE("an answer is its request's, late, or the end of the connection") {
  GatewaySlots slots(2);
  const auto first = slots.take(77).value();
  const auto judged = slots.judge(first.slot, first.generation);
  CHECK(judged.verdict == Verdict::kCurrent);
  CHECK(judged.owner == 77);
  const auto other = static_cast<std::uint8_t>(first.generation + 1);
  CHECK(slots.judge(first.slot, other).verdict == Verdict::kBroken);
  CHECK(slots.judge(static_cast<std::uint16_t>(1 - first.slot), first.generation).verdict ==
        Verdict::kBroken);
  CHECK(slots.judge(2, first.generation).verdict == Verdict::kBroken);
  slots.abandon(first.slot);
  CHECK(slots.judge(first.slot, first.generation).verdict == Verdict::kLate);
  CHECK(slots.in_flight() == 1);  // until it comes
  slots.release(first.slot);
  CHECK(slots.judge(first.slot, first.generation).verdict == Verdict::kBroken);
}

TEST_CASE("a slot's next request is told from the one before, 256 times in a row") {
  GatewaySlots slots(1);
  std::set<int> generations;
  for (int i = 0; i < 256; ++i) {
    const auto taken = slots.take(0).value();
    generations.insert(taken.generation);
    slots.release(taken.slot);
  }
  CHECK(generations.size() == 256);
}

TEST_CASE("a fence tells whoever waits or gave up, once, and frees every slot") {
  GatewaySlots slots(4);
  std::uint16_t abandoned = 0;
  for (std::uint32_t owner = 0; owner < 3; ++owner) abandoned = slots.take(owner)->slot;
  slots.abandon(abandoned);  // owner 2
  std::set<std::uint32_t> lost;
  std::set<std::uint32_t> forgotten;
  slots.fence([&](std::uint32_t owner) { CHECK(lost.insert(owner).second); },
              [&](std::uint32_t owner) { CHECK(forgotten.insert(owner).second); });
  CHECK(lost == std::set<std::uint32_t>{0, 1});
  CHECK(forgotten == std::set<std::uint32_t>{2});
  CHECK(slots.free() == 4);
}

TEST_CASE("a target sees a slot that is used twice, and a cancellation that crossed the answer") {
  TargetSlots slots(2);
  CHECK(slots.begin(1, 5));
  CHECK_FALSE(slots.begin(1, 6));
  CHECK_FALSE(slots.begin(2, 5));
  CHECK(slots.is_under_way(1, 5));
  CHECK_FALSE(slots.is_under_way(1, 4));
  CHECK_FALSE(slots.is_under_way(0, 5));
  CHECK_FALSE(slots.is_under_way(9, 5));
  CHECK(slots.in_flight() == 1);
  slots.end(1);
  CHECK_FALSE(slots.is_under_way(1, 5));
  CHECK(slots.begin(1, 6));
}
