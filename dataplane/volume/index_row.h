// One row of an index file (.idx, .ecx, .sdx, .cpx), in both widths.
//
//   width 4:  | id u64 | offset/8, 32 bits     | size i32 |   16 bytes
//   width 5:  | id u64 | low 32 bits | high 8  | size i32 |   17 bytes; the high byte comes last
//
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "shm_ring/file_id.h"

namespace kelp {

/// Bytes of the offset in a row. The file does not say; see offset_width.h.
enum class OffsetWidth : std::uint8_t { kUnknown = 0, kFour = 4, kFive = 5 };

inline constexpr std::size_t kIndexRowBytesMax = 17;

/// 16 or 17; 0 while the width is unknown.
constexpr std::size_t row_bytes(OffsetWidth width) noexcept {
  return width == OffsetWidth::kUnknown ? 0 : 12 + static_cast<std::size_t>(width);
}
static_assert(row_bytes(OffsetWidth::kFive) == kIndexRowBytesMax);

struct IndexRow {
  NeedleId id{};
  std::uint64_t offset_bytes = 0;  ///< of the record in .dat, already multiplied by 8
  std::int32_t size = 0;           ///< the record's body size; negative in a tombstone row

  /// Whether replaying this row deletes the id. Size 0 with an offset is a live, empty needle; a
  /// tombstone row's offset points at the tombstone record or nowhere, never at data.
  constexpr bool is_delete() const noexcept { return offset_bytes == 0 || size < 0; }

  friend bool operator==(const IndexRow&, const IndexRow&) = default;
};

/// Decodes one row: reads row_bytes(width) bytes at `bytes`; the width is known.
/// Cannot fail: every pattern of bits is a row. The caller holds it against the record's header.
/// Source: SeaweedFS weed/storage/types/offset_4bytes.go, offset_5bytes.go, needle_types.go.
IndexRow parse_index_row(const std::byte* bytes, OffsetWidth width) noexcept;

}  // namespace kelp
