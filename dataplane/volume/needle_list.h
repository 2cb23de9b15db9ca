// The live needles of a volume, for people and tools: pages of them, read from the files and not
// from the index a worker owns. Blocks: for a thread that may.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle.h"
#include "dataplane/volume/volume.h"
#include "shm_ring/result.h"

namespace kelp {

struct NeedlePageRequest {
  std::uint64_t from = 0;     ///< the smallest id of interest
  std::uint32_t limit = 100;  ///< most needles of a page; at least 1
  bool cookies = false;       ///< one more read per needle
  std::chrono::steady_clock::time_point deadline;
};

struct ListedNeedle {
  NeedleId id{};
  std::uint64_t offset_bytes = 0;  ///< of the record in .dat, as the row says
  std::int32_t body_bytes = 0;     ///< the record's Size
  std::optional<Cookie> cookie;    ///< not asked for, or the record is not this needle's
};

struct NeedlePage {
  std::vector<ListedNeedle> needles;  ///< by id
  std::optional<std::uint64_t> next;  ///< where the next page starts; nothing: this was the last
};

/// One pass over the .idx as it is now, holding no more than `limit` needles however large it is. A
/// page may have fewer than `limit`, even none, and still a next one.
/// Errors: a file that cannot be read, the deadline, `stop`.
Result<NeedlePage> list_needles(const VolumePaths& paths, OffsetWidth width,
                                const NeedlePageRequest& request, const std::atomic<bool>& stop);

}  // namespace kelp
