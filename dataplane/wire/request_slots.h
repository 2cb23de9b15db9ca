// Slots, credits and generations: who may ask, what is still owed, and what comes too late.
//
// A slot is one outstanding request of a connection; the credits are the slots the target grants.
// A slot stays taken until its one answer has come, or the connection is fenced: so an answer that
// comes after the gateway gave up (kLate) still finds its slot, and no later request in its place.
//
// One side of one connection each; one thread. Allocates only when it is made.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/wire/frames.h"

namespace kelp::wire {

/// The gateway's side.
class GatewaySlots {
 public:
  explicit GatewaySlots(std::uint16_t credits);

  struct Taken {
    std::uint16_t slot = 0;
    std::uint8_t generation = 0;
  };
  /// For a request of `owner`, whatever that number means to the caller. nullopt: no credit left.
  std::optional<Taken> take(std::uint32_t owner) noexcept;

  enum class Verdict : std::uint8_t {
    kCurrent,  ///< `owner` waits for it
    kLate,     ///< nobody waits: what follows it belongs nowhere
    kBroken,   ///< never asked, or asked and answered: the peer broke the protocol
  };
  struct Judged {
    Verdict verdict = Verdict::kBroken;
    std::uint32_t owner = 0;
  };
  /// What an answer is, before any of its payload goes anywhere. Changes nothing.
  Judged judge(std::uint16_t slot, std::uint8_t generation) const noexcept;
  /// Its answer has come, all of it: the slot is free.
  void release(std::uint16_t slot) noexcept;
  /// Its owner gives up: an answer is late from here on. To be followed by a Cancel.
  void abandon(std::uint16_t slot) noexcept;

  /// The connection is fenced: nothing arrives any more. Calls `lost(owner)` for each that waits,
  /// `forgotten(owner)` for each that gave up.
  template <class Lost, class Forgotten>
  void fence(Lost&& lost, Forgotten&& forgotten) noexcept {
    for (std::uint16_t slot = 0; slot < entries_.size(); ++slot) {
      const Entry was = entries_[slot];
      if (was.state != State::kFree) release(slot);
      if (was.state == State::kWaiting) lost(was.owner);
      if (was.state == State::kAbandoned) forgotten(was.owner);
    }
  }

  std::uint16_t credits() const noexcept { return static_cast<std::uint16_t>(entries_.size()); }
  std::uint16_t free() const noexcept { return static_cast<std::uint16_t>(free_.size()); }
  std::uint16_t in_flight() const noexcept {
    return static_cast<std::uint16_t>(credits() - free());
  }

 private:
  enum class State : std::uint8_t { kFree, kWaiting, kAbandoned };
  struct Entry {
    State state = State::kFree;
    std::uint8_t generation = 0;
    std::uint32_t owner = 0;
  };
  std::vector<Entry> entries_;
  std::vector<std::uint16_t> free_;  // the one released last is taken first: it is in the cache
};

/// The target's side.
class TargetSlots {
 public:
  explicit TargetSlots(std::uint16_t credits);

  /// A request arrives. False: its slot is not free, which breaks the protocol.
  bool begin(std::uint16_t slot, std::uint8_t generation) noexcept;
  /// Whether that very request is still to be answered: a Cancel may cross with the answer.
  bool is_under_way(std::uint16_t slot, std::uint8_t generation) const noexcept;
  /// It is answered.
  void end(std::uint16_t slot) noexcept;

  std::uint16_t in_flight() const noexcept { return in_flight_; }

 private:
  struct Entry {
    bool taken = false;
    std::uint8_t generation = 0;
  };
  std::vector<Entry> entries_;
  std::uint16_t in_flight_ = 0;
};

}  // namespace kelp::wire
