// CRC-32C (Castagnoli), by ISA-L. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace kelp {

/// Goes on where `crc` stopped: crc32c_extend(crc32c(a), b) is crc32c(a followed by b). Starts at
/// 0.
std::uint32_t crc32c_extend(std::uint32_t crc, std::span<const std::byte> bytes) noexcept;

inline std::uint32_t crc32c(std::span<const std::byte> bytes) noexcept {
  return crc32c_extend(0, bytes);
}

}  // namespace kelp
