// An independent, slow reading of a record: what the fuzzers hold the fast one against.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/volume/endian.h"
#include "dataplane/volume/needle.h"

namespace kelp::fuzz {

/// CRC-32C bit by bit.
inline std::uint32_t slow_crc32c(std::span<const std::byte> bytes) {
  std::uint32_t crc = 0xffffffff;
  for (const std::byte byte : bytes) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0u);
  }
  return ~crc;
}

struct Layout {
  std::size_t data_at = 0;
  std::size_t data_bytes = 0;
  std::size_t checksum_at = 0;
};

/// Where data and checksum of the record at the start of `bytes` lie; nothing if they do not fit
/// the body, or the body does not fit `bytes`.
inline std::optional<Layout> lay_out(std::span<const std::byte> bytes, std::uint8_t version) {
  if (bytes.size() < kNeedleHeaderBytes) return std::nullopt;
  const std::uint64_t body = load_be32(bytes.data() + 12);
  if (kNeedleHeaderBytes + body + tail_bytes(version) > bytes.size()) return std::nullopt;
  Layout layout{kNeedleHeaderBytes, static_cast<std::size_t>(body), kNeedleHeaderBytes + body};
  if (version == 1 || body == 0) return layout;
  if (body < kDataLengthBytes + 1) return std::nullopt;
  layout.data_at += kDataLengthBytes;
  layout.data_bytes = load_be32(bytes.data() + kNeedleHeaderBytes);
  if (layout.data_bytes > body - kDataLengthBytes - 1) return std::nullopt;
  return layout;
}

}  // namespace kelp::fuzz
