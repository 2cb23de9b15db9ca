// Every order in which a small connection can go on, all of them: credits, generations, late
// answers, cancellations and fences, with the slots that the daemon uses.
//
// The world: `slots` credits, `requests` requests of one buffer each that may be asked in any
// order, given up at any moment and asked again in the same buffer; two streams that keep their
// order; a fence at any moment, with which both streams are gone and a new connection begins. A
// target answers in any order, and a cancelled request may be answered with its bytes all the same.
//
// What must hold in each state: bytes land only in the buffer of a request that waits for them, and
// are that request's; each request that is asked ends; credits are never more or less than granted;
// the target never sees a slot used twice.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <deque>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "dataplane/wire/request_slots.h"

using namespace kelp::wire;

namespace {

constexpr std::uint8_t kIdle = 0xff;

struct Message {
  bool cancel = false;  // else a request, or an answer
  std::uint8_t slot = 0;
  std::uint8_t generation = 0;
  std::uint8_t request = 0;  // whose bytes; the model's knowledge, not the wire's
  std::uint8_t round = 0;    // how often that one had been asked
};

struct World {
  World(std::uint16_t slots, std::uint8_t requests, std::uint8_t rounds)
      : gateway(slots), target(slots), buffers(requests), most_rounds(rounds) {}

  GatewaySlots gateway;
  TargetSlots target;
  struct Buffer {
    bool waits = false;
    std::uint8_t round = 0;  // times it was asked
    std::uint8_t slot = kIdle;
    std::uint8_t generation = 0;
    std::uint8_t ended = 0;
  };
  std::vector<Buffer> buffers;
  std::deque<Message> to_target;
  std::deque<Message> to_gateway;
  std::vector<Message> under_way;  // at the target
  std::uint8_t fences = 0;
  std::uint8_t most_rounds;

  /// What two worlds that go on alike have in common.
  std::string key() const {
    std::string text;
    const auto add = [&](auto... values) { (text.push_back(static_cast<char>(values)), ...); };
    add(fences, gateway.free());
    for (const Buffer& each : buffers) add(each.waits, each.round, each.slot, each.generation);
    for (const auto* list : {&to_target, &to_gateway}) {
      add(list->size());
      for (const Message& m : *list) add(m.cancel, m.slot, m.generation, m.request, m.round);
    }
    add(under_way.size());
    for (const Message& m : under_way) add(m.slot, m.generation, m.request, m.round);
    return text;
  }
};

/// Each thing that may happen next; false: it cannot, now.
using Step = bool (*)(World&, std::size_t);

bool ask(World& w, std::size_t which) {
  World::Buffer& buffer = w.buffers[which];
  if (buffer.waits || buffer.round == w.most_rounds) return false;
  const auto taken = w.gateway.take(static_cast<std::uint32_t>(which));
  if (!taken) return false;
  ++buffer.round;
  buffer.waits = true;
  buffer.slot = static_cast<std::uint8_t>(taken->slot);
  buffer.generation = taken->generation;
  w.to_target.push_back(
      {false, buffer.slot, buffer.generation, static_cast<std::uint8_t>(which), buffer.round});
  return true;
}

bool give_up(World& w, std::size_t which) {
  World::Buffer& buffer = w.buffers[which];
  if (!buffer.waits) return false;
  buffer.waits = false;
  ++buffer.ended;
  w.gateway.abandon(buffer.slot);
  w.to_target.push_back({true, buffer.slot, buffer.generation, 0, 0});
  return true;
}

bool target_takes(World& w, std::size_t) {
  if (w.to_target.empty()) return false;
  const Message m = w.to_target.front();
  w.to_target.pop_front();
  if (!m.cancel) {
    REQUIRE(w.target.begin(m.slot, m.generation));
    w.under_way.push_back(m);
    return true;
  }
  // It may have been answered meanwhile; else it is answered now, once.
  if (!w.target.is_under_way(m.slot, m.generation)) return true;
  for (std::size_t i = 0; i < w.under_way.size(); ++i) {
    if (w.under_way[i].slot != m.slot) continue;
    w.to_gateway.push_back(w.under_way[i]);
    w.target.end(m.slot);
    w.under_way.erase(w.under_way.begin() + static_cast<std::ptrdiff_t>(i));
    break;
  }
  return true;
}

bool target_answers(World& w, std::size_t which) {
  if (which >= w.under_way.size()) return false;
  const Message m = w.under_way[which];
  w.under_way.erase(w.under_way.begin() + static_cast<std::ptrdiff_t>(which));
  w.target.end(m.slot);
  w.to_gateway.push_back(m);
  return true;
}

bool answer_arrives(World& w, std::size_t) {
  if (w.to_gateway.empty()) return false;
  const Message m = w.to_gateway.front();
  w.to_gateway.pop_front();
  const auto judged = w.gateway.judge(m.slot, m.generation);
  REQUIRE(judged.verdict != GatewaySlots::Verdict::kBroken);
  if (judged.verdict == GatewaySlots::Verdict::kCurrent) {
    World::Buffer& buffer = w.buffers[judged.owner];
    REQUIRE(buffer.waits);               // nobody has given it back
    REQUIRE(judged.owner == m.request);  // and the bytes are those it waits for
    REQUIRE(buffer.round == m.round);
    buffer.waits = false;
    ++buffer.ended;
  }
  w.gateway.release(m.slot);
  return true;
}

bool fence(World& w, std::size_t) {
  if (w.fences == 1) return false;
  ++w.fences;
  w.gateway.fence(
      [&](std::uint32_t owner) {
        REQUIRE(w.buffers[owner].waits);
        w.buffers[owner].waits = false;
        ++w.buffers[owner].ended;
      },
      [](std::uint32_t) {});
  REQUIRE(w.gateway.free() == w.gateway.credits());
  w.target = TargetSlots(w.gateway.credits());
  w.to_target.clear();
  w.to_gateway.clear();
  w.under_way.clear();
  return true;
}

void judge(const World& w) {
  const std::size_t owed =
      w.to_gateway.size() + w.under_way.size() +
      static_cast<std::size_t>(std::ranges::count(w.to_target, false, &Message::cancel));
  REQUIRE(w.gateway.in_flight() == owed);  // each slot that is taken has one answer to come
  REQUIRE(w.target.in_flight() == w.under_way.size());
  for (const World::Buffer& buffer : w.buffers) {
    REQUIRE(buffer.ended + (buffer.waits ? 1 : 0) == buffer.round);
  }
  const bool silent = w.to_target.empty() && w.to_gateway.empty() && w.under_way.empty();
  if (silent) {
    for (const World::Buffer& buffer : w.buffers) REQUIRE_FALSE(buffer.waits);
  }
}

std::size_t explore(std::uint16_t slots, std::uint8_t requests, std::uint8_t rounds) {
  constexpr std::array<Step, 6> kSteps = {
      ask, give_up, target_takes, target_answers, answer_arrives, fence};
  std::unordered_set<std::string> seen;
  std::vector<World> open;
  open.emplace_back(slots, requests, rounds);
  seen.insert(open.back().key());
  while (!open.empty()) {
    const World world = std::move(open.back());
    open.pop_back();
    judge(world);
    for (const Step step : kSteps) {
      for (std::size_t which = 0; which < requests; ++which) {
        World next = world;
        if (!step(next, which)) continue;
        if (seen.insert(next.key()).second) open.push_back(std::move(next));
      }
    }
  }
  return seen.size();
}

}  // namespace

TEST_CASE("every order of asking, giving up, answering and fencing keeps the promises") {
  std::size_t states = explore(1, 2, 3);
  states += explore(2, 2, 3);
  states += explore(2, 3, 2);
  MESSAGE(states << " states");
  CHECK(states > 10'000);
}
