#include "dataplane/wire/request_slots.h"

namespace kelp::wire {

GatewaySlots::GatewaySlots(std::uint16_t credits) : entries_(credits) {
  free_.reserve(credits);
  for (std::uint16_t slot = credits; slot > 0; --slot) {
    free_.push_back(static_cast<std::uint16_t>(slot - 1));
  }
}

std::optional<GatewaySlots::Taken> GatewaySlots::take(std::uint32_t owner) noexcept {
  if (free_.empty()) return std::nullopt;
  const std::uint16_t slot = free_.back();
  free_.pop_back();
  Entry& entry = entries_[slot];
  entry.state = State::kWaiting;
  entry.owner = owner;
  ++entry.generation;
  return Taken{slot, entry.generation};
}

GatewaySlots::Judged GatewaySlots::judge(std::uint16_t slot,
                                         std::uint8_t generation) const noexcept {
  if (slot >= entries_.size()) return {};
  const Entry& entry = entries_[slot];
  if (entry.state == State::kFree || entry.generation != generation) return {};
  return {entry.state == State::kWaiting ? Verdict::kCurrent : Verdict::kLate, entry.owner};
}

void GatewaySlots::release(std::uint16_t slot) noexcept {
  entries_[slot].state = State::kFree;
  free_.push_back(slot);
}

void GatewaySlots::abandon(std::uint16_t slot) noexcept {
  entries_[slot].state = State::kAbandoned;
}

TargetSlots::TargetSlots(std::uint16_t credits) : entries_(credits) {}

bool TargetSlots::begin(std::uint16_t slot, std::uint8_t generation) noexcept {
  if (slot >= entries_.size() || entries_[slot].taken) return false;
  entries_[slot] = {true, generation};
  ++in_flight_;
  return true;
}

bool TargetSlots::is_under_way(std::uint16_t slot, std::uint8_t generation) const noexcept {
  return slot < entries_.size() && entries_[slot].taken && entries_[slot].generation == generation;
}

void TargetSlots::end(std::uint16_t slot) noexcept {
  entries_[slot].taken = false;
  --in_flight_;
}

}  // namespace kelp::wire
