// The super block: the first 8 bytes of a .dat file, and of shard .ec00.
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/volume/ttl.h"

namespace kelp {

inline constexpr std::size_t kSuperBlockBytes = 8;

struct SuperBlock {
  std::uint8_t version = 0;               ///< 1, 2 or 3
  std::uint8_t replica_placement = 0;     ///< data centres * 100 + racks * 10 + same rack
  Ttl ttl;                                ///< of the whole volume
  std::uint16_t compaction_revision = 0;  ///< raised by each vacuum; wraps
  std::uint16_t extra_bytes = 0;          ///< as stored; a stock Go server loads only 0

  /// Where the first record starts. Version 1 has no extra part, whatever its length field says.
  constexpr std::uint64_t first_needle_offset() const noexcept {
    return kSuperBlockBytes + (version == 1 ? 0u : extra_bytes);
  }

  friend bool operator==(const SuperBlock&, const SuperBlock&) = default;
};

/// Decodes the fixed part of a super block.
/// Shape: version u8 | replica placement u8 | TTL count u8, unit u8 | compaction revision u16 |
/// extra size u16, big-endian; `extra size` bytes of protobuf follow in versions 2 and 3.
/// Nothing: the version is not 1, 2 or 3. The caller judges extra_bytes: upstream's Go server does
/// not load a volume that has any, so such a file is better left to HTTP.
/// Source: SeaweedFS weed/storage/super_block/super_block.go.
std::optional<SuperBlock> parse_super_block(
    std::span<const std::byte, kSuperBlockBytes> bytes) noexcept;

}  // namespace kelp
