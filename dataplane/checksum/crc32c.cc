#include "dataplane/checksum/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace kelp {

std::uint32_t crc32c_extend(std::uint32_t crc, std::span<const std::byte> bytes) noexcept {
  // ISA-L takes the length as an int and leaves both inversions of the CRC to the caller. A piece
  // is a multiple of its widest stride, so only the last one has an odd end.
  constexpr std::size_t kPieceBytesMax = std::size_t{1} << 30;
  std::uint32_t remainder = ~crc;
  while (!bytes.empty()) {
    const std::size_t piece_bytes = std::min(bytes.size(), kPieceBytesMax);
    // The prototype lacks a const that the function honours.
    auto* const start = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(bytes.data()));
    remainder = crc32_iscsi(start, static_cast<int>(piece_bytes), remainder);
    bytes = bytes.subspan(piece_bytes);
  }
  return ~remainder;
}

}  // namespace kelp
