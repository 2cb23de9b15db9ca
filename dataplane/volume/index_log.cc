#include "dataplane/volume/index_log.h"

#include <algorithm>
#include <cstring>

#include "dataplane/volume/needle.h"

namespace kelp {
namespace {

/// Bytes of `rows` up to the last row that is not all zeroes.
std::size_t visible_bytes(std::span<const std::byte> rows, std::size_t row) {
  std::size_t end = rows.size() / row * row;
  const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
  while (end > 0 && std::all_of(rows.begin() + static_cast<std::ptrdiff_t>(end - row),
                                rows.begin() + static_cast<std::ptrdiff_t>(end), is_zero)) {
    end -= row;
  }
  return end;
}

}  // namespace

IndexLog::Applied IndexLog::apply(std::span<const std::byte> bytes, bool more_follows) {
  Applied applied;
  const std::size_t row_length = row_size();
  if (row_length == 0) return applied;
  const std::size_t end =
      more_follows ? bytes.size() / row_length * row_length : visible_bytes(bytes, row_length);
  for (std::size_t at = 0; at < end; at += row_length) {
    const IndexRow row = parse_index_row(bytes.data() + at, width_);
    if (row.offset_bytes != 0) {
      if (row.offset_bytes < highest_end_) applied.rewound = true;
      const std::uint64_t record_end =
          row.offset_bytes + record_bytes(std::max(row.size, 0), version_);
      highest_end_ = std::max(highest_end_, record_end);
    }
    map_.apply(row);
  }
  applied.rows = end / row_length;
  consumed_bytes_ += end;
  if (end > 0) std::memcpy(last_row_.data(), bytes.data() + end - row_length, row_length);
  return applied;
}

}  // namespace kelp
