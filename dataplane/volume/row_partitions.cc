#include "dataplane/volume/row_partitions.h"

#include <algorithm>
#include <new>

namespace kelp {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kMostRegionBytes = kMostBytes / NeedleMap::kRegions;
/// Of all rows, what is put aside at a time: a region's part of the map is fetched three times.
constexpr std::uint64_t kShare = 3;
/// Rows between the first touch of a slot and its use: long enough for memory to answer.
constexpr std::uint32_t kRowsAhead = 16;
/// At most 15 000 rows each.
constexpr std::uint32_t kRegionsPerFlush = 8;

std::size_t region_bytes(std::uint64_t rows) noexcept {
  const std::uint64_t wanted = rows / kShare / NeedleMap::kRegions * sizeof(NeedleMap::Change);
  return std::clamp<std::uint64_t>(wanted / 64 * 64, 1024, kMostRegionBytes);
}

}  // namespace

RowPartitions::RowPartitions(std::uint64_t rows) noexcept
    : rows_per_region_(static_cast<std::uint32_t>(region_bytes(rows) / sizeof(NeedleMap::Change))),
      memory_(region_bytes(rows), kMostBytes) {
  memory_.expect(region_bytes(rows) * NeedleMap::kRegions);
}

bool RowPartitions::add(const IndexRow& row, NeedleMap& map) noexcept {
  Region& region = regions_[map.region_of(row.id)];
  if (region.rows == nullptr) {
    region.rows = static_cast<NeedleMap::Change*>(memory_.take());
    // Without memory of its own the region's rows, none of which is put aside, go straight on.
    if (region.rows == nullptr) return map.apply(row);
  }
  new (region.rows + region.count) NeedleMap::Change(row);
  return ++region.count < rows_per_region_ || apply(region, map);
}

RowPartitions::Flushed RowPartitions::flush(NeedleMap& map) noexcept {
  const std::uint32_t end = std::min(flushed_ + kRegionsPerFlush, NeedleMap::kRegions);
  for (; flushed_ < end; ++flushed_) {
    if (!apply(regions_[flushed_], map)) return Flushed::kOutOfMemory;
  }
  return flushed_ == NeedleMap::kRegions ? Flushed::kAll : Flushed::kSome;
}

bool RowPartitions::apply(Region& region, NeedleMap& map) noexcept {
  const std::uint32_t count = region.count;
  region.count = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (i + kRowsAhead < count) map.prefetch_slot(region.rows[i + kRowsAhead].id());
    if (!map.apply(region.rows[i])) return false;
  }
  return true;
}

}  // namespace kelp
