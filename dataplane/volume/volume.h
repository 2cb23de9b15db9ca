// One open volume: its two files, its index, and the knowledge of how fresh that index is.
//
// Built by the loader (volume_open.h), then owned by one worker, which alone calls refresh() and
// find(). Descriptors are closed by whoever destroys it: the loader, since closing a large unlinked
// file can take long.
#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "dataplane/volume/attestation.h"
#include "dataplane/volume/index_log.h"
#include "dataplane/volume/super_block.h"
#include "shm_ring/file_id.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct VolumePaths {
  std::string dat;
  std::string idx;
  std::string vif;
  std::string compaction_marker;  ///< .cpc: a vacuum is swapping the files
  std::string copy_marker;        ///< .note: the volume is being copied in
};

/// What an open volume counts, for people to look at. The owner writes, anyone reads.
struct VolumeCounters {
  std::atomic<std::uint64_t> needles{0};
  std::atomic<std::uint64_t> idx_bytes{0};
  std::atomic<std::uint64_t> generation{0};
  std::atomic<std::uint8_t> offset_width{0};  ///< 0 while it cannot be told
  std::atomic<std::uint64_t> reads{0};
  std::atomic<std::uint64_t> corrupt{0};
  std::atomic<std::uint64_t> refreshes{0};
  std::atomic<std::uint64_t> tail_rows{0};
};

class Volume {
 public:
  /// What the loader has found out; see open_volume().
  struct Parts {
    VolumeId id{};
    VolumePaths paths;
    SuperBlock super_block;
    UniqueFd dat;
    UniqueFd idx;
    struct stat idx_stat {};  ///< of `idx`, from before the replay began
    IndexLog log;
    OffsetWidth claimed_width = OffsetWidth::kUnknown;  ///< by the .vif
    bool reads_without_waiting = false;                 ///< RWF_NOWAIT works on this file system
    bool always_in_memory = false;                      ///< tmpfs: a plain read never waits
    std::shared_ptr<VolumeCounters> counters;
  };
  explicit Volume(Parts parts);

  enum class Freshness : std::uint8_t {
    kCurrent,    ///< the index shows everything acknowledged before the call
    kBehind,     ///< more rows than one call replays, or a write under way: call again
    kReplaced,   ///< the files are not, or may not be, the ones opened: open the volume anew
    kUndecided,  ///< rows are there whose width cannot be told yet
  };

  /// Brings the index up to date: one fstat() when nothing happened. Source: design, "Freshness".
  Freshness refresh() noexcept;

  std::optional<NeedleLocation> find(NeedleId id) const noexcept {
    return parts_.log.map().find(id);
  }

  /// Goes up whenever an offset learnt earlier may mean other bytes now. Unique in the process.
  std::uint64_t generation() const noexcept { return generation_; }

  VolumeId id() const noexcept { return parts_.id; }
  std::uint8_t version() const noexcept { return parts_.super_block.version; }
  std::uint16_t revision() const noexcept { return parts_.super_block.compaction_revision; }
  int dat_fd() const noexcept { return parts_.dat.get(); }
  int idx_fd() const noexcept { return parts_.idx.get(); }
  bool reads_without_waiting() const noexcept { return parts_.reads_without_waiting; }
  bool always_in_memory() const noexcept { return parts_.always_in_memory; }
  OffsetWidth width() const noexcept { return parts_.log.width(); }
  /// How far 4-byte offsets reach before they start again at 0; 0 for 5-byte ones.
  std::uint64_t wrap_bytes() const noexcept {
    return width() == OffsetWidth::kFour ? kNeedleAlignment << 32 : 0;
  }
  VolumeCounters& counters() noexcept { return *parts_.counters; }
  /// Once, by the loader: the files are a volume server's, and served on its word only.
  void attested_by(std::shared_ptr<Attestation> attestation) noexcept {
    attestation_ = std::move(attestation);
  }
  /// Null: of a directory without a server.
  Attestation* attestation() const noexcept { return attestation_.get(); }
  VolumeKey key() const noexcept {
    return {attestation_ == nullptr ? 0 : attestation_->facts().key.server, parts_.id};
  }

  /// How many bytes followed the data in the last record read: the next one's best guess. Reads on
  /// the storage thread update it too.
  std::atomic<std::uint32_t>& meta_guess_bytes() noexcept { return meta_guess_bytes_; }

  /// Reads that use this object now; the owner counts. Not to be destroyed above 0.
  std::uint32_t pins = 0;

 private:
  static constexpr std::uint64_t kRowsPerRefresh = 4096;

  bool look(struct stat& now) const noexcept;
  bool path_is_ours() const noexcept;
  bool changed_since_seen(const struct stat& now) const noexcept;
  bool rows_unseen() const noexcept;
  Freshness take_rows(const struct stat& now) noexcept;
  Freshness settle_equal_size() noexcept;
  Freshness replay_tail(const struct stat& now) noexcept;
  Freshness decide_width(const struct stat& now) noexcept;
  void remember(const struct stat& now) noexcept;
  void next_generation() noexcept;

  Parts parts_;
  std::shared_ptr<Attestation> attestation_;
  std::uint64_t seen_size_ = 0;
  struct timespec seen_ctime_ {};
  struct timespec seen_mtime_ {};
  nlink_t seen_links_ = 0;
  std::uint64_t stamped_since_ns_ = 0;  // a write seems under way since; 0: none
  std::uint64_t generation_ = 0;
  std::atomic<std::uint32_t> meta_guess_bytes_{8};
};

}  // namespace kelp
