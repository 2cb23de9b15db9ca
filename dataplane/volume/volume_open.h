// Opening a volume that a server may be writing, vacuuming or deleting at this moment.
// Loader thread: everything here may block.
#pragma once

#include <memory>
#include <string>

#include "dataplane/volume/volume.h"
#include "shm_ring/result.h"

namespace kelp {

/// Why a volume is not served from its files.
enum class OpenRefusal : std::uint8_t {
  kNotNow,   ///< in the middle of a copy, a vacuum or its creation: try again soon
  kUseHttp,  ///< only the volume server can read it (tiered, unknown format)
  kBroken,   ///< unreadable, or no volume at all; tried again when its files change
};

struct OpenFailure {
  OpenRefusal refusal = OpenRefusal::kBroken;
  std::string reason;  ///< a sentence for /volumes
};

/// An open in progress. The replay of a large index takes seconds, so it goes in turns, between
/// which the loader can serve others.
class VolumeOpen {
 public:
  VolumeOpen(VolumeId id, VolumePaths paths, std::shared_ptr<VolumeCounters> counters);

  enum class Turn : std::uint8_t { kMore, kDone, kFailed };

  /// The first turn opens both files by the protocol of the format reference, section 7.3 (no copy
  /// or vacuum marker before and after, same inodes before and after) and tells the width; each
  /// later one replays up to 64 Ki rows.
  Turn step();

  /// After kDone; once.
  std::unique_ptr<Volume> take();
  /// After kFailed.
  const OpenFailure& failure() const noexcept { return failure_; }

 private:
  Turn fail(OpenRefusal refusal, std::string reason);
  Turn open_files();
  Turn replay();
  Turn settle();

  Volume::Parts parts_;
  OpenFailure failure_;
  bool opened_ = false;
};

}  // namespace kelp
