// The memory one client shares with the daemon: a ring segment and a data area, two sealed memfds.
//
// Made and destroyed by the control thread. Workers resolve offsets in it and write into it while
// they have requests of the client in flight; it is destroyed only after they have none.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "dataplane/memory/fault_guard.h"
#include "dataplane/memory/region_keys.h"
#include "shm_ring/layout.h"
#include "shm_ring/mapping.h"
#include "shm_ring/result.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

enum class HugepageUse : std::uint8_t {
  kOff,
  kPrefer,   ///< hugepages if the pool has enough free, ordinary pages otherwise
  kRequire,  ///< an error if the pool has not
};

class ClientSegment {
 public:
  /// Creates both memfds, sealed against growing and shrinking, and maps them. `data_bytes` is
  /// rounded up to whole pages of the kind used.
  static Result<std::unique_ptr<ClientSegment>> create(const SegmentLayout& layout,
                                                       std::uint64_t data_bytes, HugepageUse use);
  ~ClientSegment();

  const SegmentLayout& layout() const noexcept { return layout_; }
  std::byte* ring_block(std::uint32_t ring) const noexcept {
    return segment_.data() + layout_.ring_offset(ring);
  }

  /// The part of the data area a request names; nothing unless it lies inside.
  std::optional<std::span<std::byte>> resolve(std::uint64_t offset_bytes,
                                              std::uint32_t length_bytes) const noexcept {
    if (length_bytes > data_.size()) return std::nullopt;
    if (offset_bytes > data_.size() - length_bytes) return std::nullopt;  // cannot wrap
    return std::span(data_.data() + offset_bytes, length_bytes);
  }

  /// The data area, and the keys under which adapters write to it.
  std::span<std::byte> data() const noexcept { return {data_.data(), data_.size()}; }
  RegionKeys& region_keys() noexcept { return keys_; }

  std::uint64_t data_bytes() const noexcept { return data_.size(); }
  std::uint64_t page_bytes() const noexcept { return page_bytes_; }
  int segment_fd() const noexcept { return segment_fd_.get(); }
  int data_fd() const noexcept { return data_fd_.get(); }

  /// The client took pages out of its memory: nothing of it is to be believed any more.
  void condemn() noexcept { condemned_.store(true, std::memory_order_release); }
  bool condemned() const noexcept { return condemned_.load(std::memory_order_acquire); }

  /// A worker fell asleep over a fault in this memory: until `end` it should be touched by threads
  /// only that may wait. relaxed: orders nothing.
  void distrust(Ticks end) noexcept { distrusted_until_.store(end, std::memory_order_relaxed); }
  bool distrusted(Ticks now) const noexcept {
    return now < distrusted_until_.load(std::memory_order_relaxed);
  }

 private:
  ClientSegment() = default;
  Result<void> map(std::uint64_t data_bytes, HugepageUse use);
  Result<void> map_data(std::uint64_t bytes, bool huge);

  SegmentLayout layout_;
  UniqueFd segment_fd_;
  UniqueFd data_fd_;
  Mapping segment_;
  Mapping data_;
  std::uint64_t page_bytes_ = kPageBytes;
  RegionKeys keys_;
  std::atomic<bool> condemned_{false};
  std::atomic<Ticks> distrusted_until_{0};
  FaultGuard segment_guard_;  // before the mappings go
  FaultGuard data_guard_;
};

}  // namespace kelp
