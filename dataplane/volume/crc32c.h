// CRC-32C (Castagnoli) of needle data, and the two ways a record may store it.
// Pure functions, any thread. The bytes covered are the stored ones: compressed, encrypted or
// neither; never the header or the fields around them.
#pragma once

#include <bit>
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

/// How servers before 3.09 stored a checksum.
/// Source: SeaweedFS weed/storage/needle/crc.go, CRC.Value.
constexpr std::uint32_t masked_crc(std::uint32_t crc) noexcept {
  return std::rotr(crc, 15) + 0xa282ead8u;
}

/// Whether a record's checksum fits the data, in either form. A record without data (body of 0
/// bytes) carries a checksum that means nothing: do not ask.
/// Source: SeaweedFS weed/storage/needle/needle_read_tail.go.
constexpr bool checksum_matches(std::uint32_t stored, std::uint32_t computed) noexcept {
  return stored == computed || stored == masked_crc(computed);
}

}  // namespace kelp
