// The checks every record passes before a byte of it is served, shared by both ways of reading.
// Pure functions over daemon-private bytes; nothing here allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/volume/needle.h"
#include "dataplane/volume/needle_map.h"
#include "shm_ring/file_id.h"
#include "shm_ring/kelp.h"

namespace kelp {

/// The cookie of records that a vacuum's catch-up makes up.
/// Source: SeaweedFS weed/storage/volume_vacuum.go, makeupDiff.
inline constexpr Cookie kMakeupCookie{0x12345678};

/// What the index and the caller say a record must be.
struct ExpectedRecord {
  NeedleLocation location;
  NeedleId needle{};
  Cookie cookie{};
  std::uint8_t version = 3;

  /// Header and, where there is one, the data length.
  std::size_t prefix_bytes() const noexcept {
    return kNeedleHeaderBytes + (has_data_length() ? kDataLengthBytes : 0);
  }
  bool has_data_length() const noexcept { return version != 1 && location.body_bytes != 0; }
  std::uint64_t body_bytes() const noexcept {
    return static_cast<std::uint32_t>(location.body_bytes);
  }
  /// From the record's start to the end of checksum and append time.
  std::uint64_t unpadded_bytes() const noexcept {
    return kNeedleHeaderBytes + body_bytes() + tail_bytes(version);
  }
};

/// Where the parts of a record lie, from its start.
struct RecordShape {
  std::uint64_t data_offset_bytes = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t meta_bytes = 0;  ///< flags and optional fields; 0 in version 1
};

/// Holds header and data length against what was expected. `prefix` has prefix_bytes().
/// KELP_CORRUPT: id or size differ, or the data does not fit the body. KELP_WRONG_COOKIE: only the
/// cookie differs. KELP_OK: `shape` is filled in.
kelp_status check_prefix(const ExpectedRecord& expected, std::span<const std::byte> prefix,
                         RecordShape& shape) noexcept;

/// Parses flags and fields, checksum and append time, and applies what they forbid.
/// KELP_CORRUPT, KELP_EXPIRED, KELP_USE_HTTP (chunk manifest; not for `stat`), KELP_OK.
kelp_status check_suffix(const ExpectedRecord& expected, std::span<const std::byte> meta,
                         std::span<const std::byte> tail, bool stat, NeedleMeta& parsed,
                         NeedleTail& parsed_tail) noexcept;

/// Unix nanoseconds by the wall clock: what TTLs count in.
std::uint64_t wall_clock_ns() noexcept;

}  // namespace kelp
