// Who owns which part of the data area, on the client's side.
//
// alloc() and free() take a lock; begin_write() and end_write(), once per read, do not. A buffer
// that a read may still write into is never handed out again: freeing it only marks it, and the
// last end_write() gives it back.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "shm_ring/kelp.h"

namespace kelp {

class BufferPool {
 public:
  /// `bytes` of data area, in allocations of whole 4 KiB units.
  explicit BufferPool(std::uint64_t bytes);

  /// Offset of `bytes` free bytes; nothing if no gap is large enough. Any thread.
  std::optional<std::uint64_t> alloc(std::uint64_t bytes);

  /// Gives back the allocation that starts at `offset`; false if none does. Any thread.
  bool free(std::uint64_t offset);

  /// Notes that a read may write [offset, offset + length). KELP_BAD_BUFFER unless that lies inside
  /// one live allocation; KELP_BUFFER_BUSY if a held read may still write there.
  kelp_status begin_write(std::uint64_t offset, std::uint32_t length) noexcept;

  /// The read of begin_write() can write no more.
  void end_write(std::uint64_t offset) noexcept;

  /// A read that completed with its buffer held: [offset, offset + length) is refused to
  /// begin_write() until unhold(). Both between begin_write() and end_write().
  /// Without memory to note the range, all ranges are refused until then.
  void hold(std::uint64_t offset, std::uint32_t length) noexcept;
  void unhold(std::uint64_t offset, std::uint32_t length) noexcept;

  /// Bytes in no allocation, over all gaps.
  std::uint64_t free_bytes() const;

 private:
  static constexpr std::uint64_t kUnit = 4096;
  static constexpr std::uint32_t kNone = UINT32_MAX;

  // One per unit, used in the entry of an allocation's first unit.
  struct Allocation {
    std::atomic<std::uint32_t> units{0};   // 0: not the start of an allocation
    std::atomic<std::uint32_t> writes{0};  // reads in flight; top bit: freed by its owner
  };
  static constexpr std::uint32_t kFreed = 1U << 31;

  [[gnu::noinline, gnu::cold]] bool overlaps_held(std::uint64_t offset,
                                                  std::uint32_t length) const noexcept;
  void give_back(std::uint32_t first);
  void recycle(std::uint32_t first) noexcept;

  const std::uint32_t units_;
  std::unique_ptr<Allocation[]> allocations_;
  std::unique_ptr<std::atomic<std::uint32_t>[]> owner_;  // first unit of the allocation, or kNone

  mutable std::mutex mutex_;
  std::map<std::uint32_t, std::uint32_t> gaps_;  // first unit -> units
  struct Held {
    std::uint64_t offset;
    std::uint64_t end;
  };
  std::vector<Held> held_;
  std::uint32_t unlisted_ = 0;  // held, and not in held_ for want of memory
  std::atomic<std::uint32_t> held_count_{0};
};

}  // namespace kelp
