// Telling 16-byte index rows from 17-byte ones by the files alone.
// The .vif may claim a width, and can be wrong: a server of the other build writes its own width
// next to a volume that had none. So both readings of the rows are held against the records.
// Set-up code: reads up to 128 headers. Any thread; not to run on a polling worker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle.h"

namespace kelp {

inline constexpr std::size_t kWidthRowsMax = 64;

/// As much of the start of an index as detect_offset_width looks at.
inline constexpr std::size_t kWidthBytesMax = kWidthRowsMax * kIndexRowBytesMax;

/// Reads the 16 bytes at `offset_bytes` of the .dat. False: they exist but cannot be had (a shard
/// is missing, an I/O error), and the row says nothing. Past the end of the file there is no
/// record, and that speaks against the row: answer true after fill_no_header().
using HeaderReader = std::function<bool(std::uint64_t offset_bytes,
                                        std::span<std::byte, kNeedleHeaderBytes> header)>;

/// A header that fits no row: its size is one that no record has.
void fill_no_header(std::span<std::byte, kNeedleHeaderBytes> header) noexcept;

/// Scores the first 64 whole rows under both widths and answers the better one, or kUnknown on a
/// tie and without a single row that fits its record: too few rows yet, so ask again when there are
/// more. One row never decides by itself: a half-visible 17-byte row of an empty needle is a
/// perfect 16-byte row. Nor does the file's length, which is ambiguous and may be cut.
/// `index_start` is the start of the index, kWidthBytesMax bytes of it or all there is.
OffsetWidth detect_offset_width(std::span<const std::byte> index_start,
                                const HeaderReader& read_header);

/// The same with headers read from an open .dat. The descriptor stays the caller's.
OffsetWidth detect_offset_width(std::span<const std::byte> index_start, int dat_fd);

}  // namespace kelp
