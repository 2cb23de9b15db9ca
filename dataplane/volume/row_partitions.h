// Rows of a large index on their way into a map far larger than the CPU's caches.
//
// Row by row each would be applied to a random place of the map, and wait for memory. So they are
// put aside by region, the places that lie near each other, and a region's rows are applied
// together once there are enough of them: their part of the map then is in the cache.
// Rows of one needle are of one region and keep their order, so the map becomes what it would have
// become row by row; until flush() is through it lags behind. Nothing throws. One thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle_map.h"
#include "dataplane/volume/unit_pool.h"

namespace kelp {

class RowPartitions {
 public:
  /// For an index of about `rows`: the more, the more are put aside, up to 64 MiB of them.
  explicit RowPartitions(std::uint64_t rows) noexcept;

  /// Puts a row aside, for `map`: always the same one. False: there is no memory for needles put
  /// aside before; the map is of no use any more.
  bool add(const IndexRow& row, NeedleMap& map) noexcept;
  enum class Flushed : std::uint8_t {
    kAll,          ///< nothing is put aside any more
    kSome,         ///< call again
    kOutOfMemory,  ///< as add()'s false
  };
  /// Applies what is put aside, some regions at a time: a call takes milliseconds.
  Flushed flush(NeedleMap& map) noexcept;

  /// Fewer rows than this are applied as fast one by one.
  static constexpr std::uint64_t kWorthwhileRows = 1 << 20;

 private:
  struct Region {
    NeedleMap::Change* rows = nullptr;  // room for rows_per_region_; null until the first
    std::uint32_t count = 0;
  };

  static bool apply(Region& region, NeedleMap& map) noexcept;

  std::uint32_t rows_per_region_;
  UnitPool memory_;
  std::uint32_t flushed_ = 0;  // regions flush() is through with
  std::array<Region, NeedleMap::kRegions> regions_{};
};

}  // namespace kelp
