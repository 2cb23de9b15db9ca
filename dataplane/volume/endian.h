// Big-endian loads: every number in a SeaweedFS volume, index and super block is big-endian.
// Pure functions, any thread. The bytes need no alignment.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace kelp {

namespace endian_detail {

constexpr std::uint16_t swap_bytes(std::uint16_t value) noexcept {
  return __builtin_bswap16(value);
}
constexpr std::uint32_t swap_bytes(std::uint32_t value) noexcept {
  return __builtin_bswap32(value);
}
constexpr std::uint64_t swap_bytes(std::uint64_t value) noexcept {
  return __builtin_bswap64(value);
}

template <class Unsigned>
Unsigned load_big_endian(const std::byte* bytes) noexcept {
  Unsigned value;
  std::memcpy(&value, bytes, sizeof value);
  if constexpr (std::endian::native == std::endian::little) value = swap_bytes(value);
  return value;
}

}  // namespace endian_detail

/// Each reads exactly 2, 4 or 8 bytes at `bytes`; the caller has checked that they are there.
inline std::uint16_t load_be16(const std::byte* bytes) noexcept {
  return endian_detail::load_big_endian<std::uint16_t>(bytes);
}
inline std::uint32_t load_be32(const std::byte* bytes) noexcept {
  return endian_detail::load_big_endian<std::uint32_t>(bytes);
}
inline std::uint64_t load_be64(const std::byte* bytes) noexcept {
  return endian_detail::load_big_endian<std::uint64_t>(bytes);
}

}  // namespace kelp
