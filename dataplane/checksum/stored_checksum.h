// The two ways a record may store the CRC-32C of its data. The bytes covered are the stored ones:
// compressed, encrypted or neither; never the header or the fields around them.
#pragma once

#include <bit>
#include <cstdint>

namespace kelp {

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
