// Which needle lies where: the live rows of an index.
// One thread at a time; the worker that owns the volume, or the loader before that.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <optional>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle.h"

namespace kelp {

struct NeedleLocation {
  std::uint64_t offset_bytes = 0;  ///< of the record in .dat
  std::int32_t body_bytes = 0;     ///< the header's Size; 0 is a live, empty needle
  friend bool operator==(const NeedleLocation&, const NeedleLocation&) = default;
};

class NeedleMap {
 public:
  /// Applies one row: a put overwrites, a delete forgets.
  void apply(const IndexRow& row) {
    const auto key = static_cast<std::uint64_t>(row.id);
    if (row.is_delete()) {
      map_.erase(key);
      return;
    }
    const std::uint64_t units = row.offset_bytes / kNeedleAlignment;
    map_.insert_or_assign(key, Packed{static_cast<std::uint32_t>(units),
                                      static_cast<std::uint32_t>(units >> 32), row.size});
  }

  std::optional<NeedleLocation> find(NeedleId id) const noexcept {
    const auto found = map_.find(static_cast<std::uint64_t>(id));
    if (found == map_.end()) return std::nullopt;
    const Packed& packed = found->second;
    const std::uint64_t units = packed.units_low | (std::uint64_t{packed.units_high} << 32);
    return NeedleLocation{units * kNeedleAlignment, packed.body_bytes};
  }

  std::uint64_t size() const noexcept { return map_.size(); }

  /// Room for `needles`, so that the worker's inserts do not rehash.
  void reserve(std::uint64_t needles) { map_.reserve(needles); }

 private:
  struct Packed {
    std::uint32_t units_low;
    std::uint32_t units_high;
    std::int32_t body_bytes;
  };
  absl::flat_hash_map<std::uint64_t, Packed> map_;
};

}  // namespace kelp
