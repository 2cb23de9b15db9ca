// How far an .idx has been replayed, and what came of it.
// One thread at a time; the worker that owns the volume, or the loader before that.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle_map.h"
#include "dataplane/volume/row_partitions.h"

namespace kelp {

class IndexLog {
 public:
  IndexLog() = default;
  explicit IndexLog(std::uint8_t needle_version, NeedleMap map = NeedleMap()) noexcept
      : version_(needle_version), map_(std::move(map)) {}

  OffsetWidth width() const noexcept { return width_; }
  void set_width(OffsetWidth width) noexcept { width_ = width; }
  std::size_t row_size() const noexcept { return row_bytes(width_); }

  /// Says before the first row that about so many will come. If they are many they are put aside
  /// in between: map() is complete only after settle().
  void expect(std::uint64_t rows) noexcept;
  /// Ends what expect() began, in turns of some milliseconds: to be called until it says kAll.
  /// kOutOfMemory: there is none for the rows put aside; this log is of no use any more.
  RowPartitions::Flushed settle() noexcept;

  /// Bytes of the file that have been replayed: whole rows.
  std::uint64_t consumed_bytes() const noexcept { return consumed_bytes_; }

  /// The last replayed row, as it lay in the file; empty before the first.
  std::span<const std::byte> last_row() const noexcept {
    return {last_row_.data(), consumed_bytes_ == 0 ? 0 : row_size()};
  }

  struct Applied {
    std::uint64_t rows = 0;
    bool rewound = false;        ///< a row points below the highest record end: offsets were reused
    bool out_of_memory = false;  ///< the row after those could not be applied; those were, unless
                                 ///< expect() had them put aside
  };

  /// Replays the whole rows of `bytes`, which follow what was consumed. A partial row at the end is
  /// not yet visible and left for next time; so are rows of nothing but zeroes at the end of the
  /// file, that is, unless `more_follows`.
  Applied apply(std::span<const std::byte> bytes, bool more_follows) noexcept;

  const NeedleMap& map() const noexcept { return map_; }
  NeedleMap& map() noexcept { return map_; }

 private:
  void apply_to_map(std::span<const std::byte> rows, Applied& applied) noexcept;
  void put_aside(std::span<const std::byte> rows, Applied& applied) noexcept;
  void count(const IndexRow& row, Applied& applied) noexcept;

  std::uint8_t version_ = 3;
  OffsetWidth width_ = OffsetWidth::kUnknown;
  std::uint64_t consumed_bytes_ = 0;
  std::uint64_t highest_end_ = 0;
  std::array<std::byte, kIndexRowBytesMax> last_row_{};
  NeedleMap map_;
  std::unique_ptr<RowPartitions> partitions_;  // between expect() of many rows and settle()
};

}  // namespace kelp
