// What an event of the sidecar's epoll set is about, in its 64 bits: a connection, by place and
// generation, or something else.
#pragma once

#include <cstdint>

namespace kelp::sidecar {

enum class Special : std::uint32_t { kListener, kRing, kWake };

/// No connection has this generation.
constexpr std::uint64_t kSpecialBit = 1ULL << 63;

constexpr std::uint64_t special_id(Special what, std::uint32_t number = 0) noexcept {
  return kSpecialBit | std::uint64_t{static_cast<std::uint32_t>(what)} << 32 | number;
}
constexpr std::uint64_t connection_id(std::uint32_t place, std::uint32_t generation) noexcept {
  return std::uint64_t{generation} << 32 | place;
}

constexpr bool is_special(std::uint64_t id) noexcept {
  return (id & kSpecialBit) != 0;
}
constexpr Special special_of(std::uint64_t id) noexcept {
  return static_cast<Special>((id & ~kSpecialBit) >> 32);
}
constexpr std::uint32_t number_of(std::uint64_t id) noexcept {
  return static_cast<std::uint32_t>(id);
}
constexpr std::uint32_t generation_of(std::uint64_t id) noexcept {
  return static_cast<std::uint32_t>(id >> 32);
}
constexpr std::uint32_t next_generation(std::uint32_t generation) noexcept {
  return (generation + 1) & 0x7fffffff;
}

}  // namespace kelp::sidecar
