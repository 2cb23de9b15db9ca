#include "shm_ring/buffer_pool.h"

#include <algorithm>
#include <new>

namespace kelp {

BufferPool::BufferPool(std::uint64_t bytes)
    : units_(static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes / kUnit, kNone - 1))),
      allocations_(std::make_unique<Allocation[]>(units_)),
      owner_(std::make_unique<std::atomic<std::uint32_t>[]>(units_)) {
  for (std::uint32_t i = 0; i < units_; ++i) owner_[i].store(kNone, std::memory_order_relaxed);
  if (units_ > 0) gaps_.emplace(0, units_);
}

std::optional<std::uint64_t> BufferPool::alloc(std::uint64_t bytes) {
  if (bytes == 0 || bytes > std::uint64_t{units_} * kUnit) return std::nullopt;
  const auto wanted = static_cast<std::uint32_t>((bytes + kUnit - 1) / kUnit);
  const std::lock_guard lock(mutex_);
  const auto gap = std::find_if(gaps_.begin(), gaps_.end(),
                                [&](const auto& entry) { return entry.second >= wanted; });
  if (gap == gaps_.end()) return std::nullopt;
  const auto [first, size] = *gap;
  gaps_.erase(gap);
  if (size > wanted) gaps_.emplace(first + wanted, size - wanted);

  allocations_[first].writes.store(0, std::memory_order_relaxed);
  // relaxed: the caller hands the buffer to another thread with an ordering of its own, or not at
  // all.
  allocations_[first].units.store(wanted, std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < wanted; ++i) {
    owner_[first + i].store(first, std::memory_order_relaxed);
  }
  return std::uint64_t{first} * kUnit;
}

bool BufferPool::free(std::uint64_t offset) {
  const std::uint64_t unit = offset / kUnit;
  if (offset % kUnit != 0 || unit >= units_) return false;
  const auto first = static_cast<std::uint32_t>(unit);
  const std::lock_guard lock(mutex_);
  if (allocations_[first].units.load(std::memory_order_relaxed) == 0) return false;
  // acq_rel pairs with end_write(): exactly one of the two sees "freed and no write left".
  const std::uint32_t before =
      allocations_[first].writes.fetch_or(kFreed, std::memory_order_acq_rel);
  if ((before & kFreed) != 0) return false;
  if (before == 0) give_back(first);
  return true;
}

kelp_status BufferPool::begin_write(std::uint64_t offset, std::uint32_t length) noexcept {
  const std::uint64_t unit = offset / kUnit;
  if (unit >= units_) return KELP_BAD_BUFFER;
  const std::uint32_t first = owner_[unit].load(std::memory_order_relaxed);
  if (first == kNone) return KELP_BAD_BUFFER;
  Allocation& allocation = allocations_[first];
  const std::uint64_t end =
      (std::uint64_t{first} + allocation.units.load(std::memory_order_relaxed)) * kUnit;
  if (length > end - offset) return KELP_BAD_BUFFER;
  // Never counts on a freed allocation, not even for a moment: it may have been given back already.
  std::uint32_t before = allocation.writes.load(std::memory_order_relaxed);
  do {
    if ((before & kFreed) != 0) return KELP_BAD_BUFFER;
  } while (!allocation.writes.compare_exchange_weak(before, before + 1, std::memory_order_acq_rel,
                                                    std::memory_order_relaxed));
  if (held_count_.load(std::memory_order_relaxed) != 0 && overlaps_held(offset, length))
      [[unlikely]] {
    end_write(offset);
    return KELP_BUFFER_BUSY;
  }
  return KELP_OK;
}

bool BufferPool::overlaps_held(std::uint64_t offset, std::uint32_t length) const noexcept {
  const std::lock_guard lock(mutex_);
  return unlisted_ > 0 || std::any_of(held_.begin(), held_.end(), [&](const Held& held) {
           return offset < held.end && held.offset < offset + length;
         });
}

void BufferPool::end_write(std::uint64_t offset) noexcept {
  const std::uint32_t first = owner_[offset / kUnit].load(std::memory_order_relaxed);
  // Only where a caller freed the buffer on one thread while it submitted it on another.
  if (first == kNone) [[unlikely]]
    return;
  const std::uint32_t before = allocations_[first].writes.fetch_sub(1, std::memory_order_acq_rel);
  if (before == (kFreed | 1U)) [[unlikely]] {
    recycle(first);
  }
}

void BufferPool::hold(std::uint64_t offset, std::uint32_t length) noexcept {
  const std::lock_guard lock(mutex_);
  try {
    held_.push_back({offset, offset + length});
  } catch (const std::bad_alloc&) {
    ++unlisted_;
  }
  held_count_.fetch_add(1, std::memory_order_relaxed);
}

void BufferPool::unhold(std::uint64_t offset, std::uint32_t length) noexcept {
  const std::lock_guard lock(mutex_);
  const auto found = std::find_if(held_.begin(), held_.end(), [&](const Held& held) {
    return held.offset == offset && held.end == offset + length;
  });
  if (found != held_.end()) {
    held_.erase(found);
  } else if (unlisted_ > 0) {
    --unlisted_;
  } else {
    return;
  }
  held_count_.fetch_sub(1, std::memory_order_relaxed);
}

std::uint64_t BufferPool::free_bytes() const {
  const std::lock_guard lock(mutex_);
  std::uint64_t units = 0;
  for (const auto& [first, size] : gaps_) units += size;
  return units * kUnit;
}

void BufferPool::recycle(std::uint32_t first) noexcept {
  const std::lock_guard lock(mutex_);
  give_back(first);
}

void BufferPool::give_back(std::uint32_t first) {
  const std::uint32_t size = allocations_[first].units.exchange(0, std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < size; ++i) {
    owner_[first + i].store(kNone, std::memory_order_relaxed);
  }
  auto next = gaps_.emplace(first, size).first;
  if (next != gaps_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == first) {
      previous->second += size;
      gaps_.erase(next);
      next = previous;
    }
  }
  const auto after = std::next(next);
  if (after != gaps_.end() && next->first + next->second == after->first) {
    next->second += after->second;
    gaps_.erase(after);
  }
}

}  // namespace kelp
