#include "dataplane/volume/index_log.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>

#include "dataplane/volume/needle.h"

namespace kelp {
namespace {

/// Rows between two steps of one: long enough for memory to answer.
constexpr std::size_t kRowsAhead = 16;

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

void IndexLog::expect(std::uint64_t rows) noexcept {
  map_.expect(rows);
  if (rows < RowPartitions::kWorthwhileRows) return;
  partitions_.reset(new (std::nothrow) RowPartitions(rows));  // without it: row by row
}

RowPartitions::Flushed IndexLog::settle() noexcept {
  if (partitions_ == nullptr) return RowPartitions::Flushed::kAll;
  const RowPartitions::Flushed flushed = partitions_->flush(map_);
  if (flushed == RowPartitions::Flushed::kAll) partitions_.reset();
  return flushed;
}

IndexLog::Applied IndexLog::apply(std::span<const std::byte> bytes, bool more_follows) noexcept {
  Applied applied;
  const std::size_t row_length = row_size();
  if (row_length == 0) return applied;
  const std::size_t length =
      more_follows ? bytes.size() / row_length * row_length : visible_bytes(bytes, row_length);
  partitions_ != nullptr ? put_aside(bytes.first(length), applied)
                         : apply_to_map(bytes.first(length), applied);
  const std::size_t end = applied.rows * row_length;
  consumed_bytes_ += end;
  if (end > 0) std::memcpy(last_row_.data(), bytes.data() + end - row_length, row_length);
  return applied;
}

void IndexLog::put_aside(std::span<const std::byte> rows, Applied& applied) noexcept {
  for (std::size_t at = 0; at < rows.size(); at += row_size()) {
    const IndexRow row = parse_index_row(rows.data() + at, width_);
    applied.out_of_memory = !partitions_->add(row, map_);
    if (applied.out_of_memory) return;
    count(row, applied);
  }
}

void IndexLog::apply_to_map(std::span<const std::byte> bytes, Applied& applied) noexcept {
  const std::size_t rows = bytes.size() / row_size();
  // Three rows at a time are worked on: one is parsed and its segment of the map loaded, one
  // before it gets its slot loaded, and one before that is applied.
  std::array<IndexRow, 4 * kRowsAhead> window;
  const auto row_at = [&window](std::size_t row) -> IndexRow& {
    return window[row % window.size()];
  };
  for (std::size_t row = 0; row < rows + 2 * kRowsAhead; ++row) {
    if (row < rows) {
      row_at(row) = parse_index_row(bytes.data() + row * row_size(), width_);
      map_.prefetch_segment(row_at(row).id);
    }
    if (row >= kRowsAhead && row < rows + kRowsAhead)
      map_.prefetch_slot(row_at(row - kRowsAhead).id);
    if (row < 2 * kRowsAhead) continue;
    const IndexRow& next = row_at(row - 2 * kRowsAhead);
    applied.out_of_memory = !map_.apply(next);
    if (applied.out_of_memory) return;
    count(next, applied);
  }
}

void IndexLog::count(const IndexRow& row, Applied& applied) noexcept {
  if (row.offset_bytes != 0) {
    if (row.offset_bytes < highest_end_) applied.rewound = true;
    const std::uint64_t record_end =
        row.offset_bytes + record_bytes(std::max(row.size, 0), version_);
    highest_end_ = std::max(highest_end_, record_end);
  }
  ++applied.rows;
}

}  // namespace kelp
