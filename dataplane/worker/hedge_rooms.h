// Memory for second attempts at reads, which may not land in a buffer the first may still write to.
//
// Belongs to one worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace kelp {

class HedgeRooms {
 public:
  static constexpr std::uint16_t kRooms = 16;
  static constexpr std::size_t kRoomBytes = 256 * 1024;

  HedgeRooms() : memory_(new std::byte[kRooms * kRoomBytes]) {
    for (std::uint16_t room = kRooms; room-- > 0;) free_.push_back(room);
  }

  bool any() const noexcept { return !free_.empty(); }
  /// While there are any().
  std::uint16_t take() noexcept {
    const std::uint16_t room = free_.back();
    free_.pop_back();
    return room;
  }
  void give_back(std::uint16_t room) noexcept { free_.push_back(room); }
  std::span<std::byte> bytes(std::uint16_t room) noexcept {
    return {memory_.get() + room * kRoomBytes, kRoomBytes};
  }

 private:
  std::unique_ptr<std::byte[]> memory_;  // touched as it is used
  std::vector<std::uint16_t> free_;
};

}  // namespace kelp
