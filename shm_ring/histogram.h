// Log-linear histograms of durations. One thread records; any thread may read a snapshot meanwhile
// and gets counts a moment old.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstdint>
#include <vector>

namespace kelp {

/// With 2^kLinearBits linear steps per power of two.
template <unsigned kLinearBits>
class LogLinearHistogram {
 private:
  static constexpr unsigned kMaxBits = 42;

 public:
  static constexpr std::size_t kBuckets = (kMaxBits - kLinearBits + 1) << kLinearBits;

  /// Values are nanoseconds; beyond 2^42 (73 minutes) they count as the longest.
  void record(std::uint64_t value_ns) noexcept {
    // relaxed load + store: only this thread writes, readers want a number, not an order.
    std::atomic<std::uint64_t>& bucket = buckets_[bucket_of(value_ns)];
    bucket.store(bucket.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    if (value_ns > max_.load(std::memory_order_relaxed)) {
      max_.store(value_ns, std::memory_order_relaxed);
    }
  }

  std::uint64_t count() const noexcept;
  std::uint64_t max() const noexcept { return max_.load(std::memory_order_relaxed); }
  std::uint64_t count_in(std::size_t bucket) const noexcept {
    return buckets_[bucket].load(std::memory_order_relaxed);
  }

  /// Takes over what `other` holds, as if it had been recorded here. On the recording thread.
  void add(const LogLinearHistogram& other) noexcept;
  /// Takes `other` away again, an earlier snapshot of the same recordings. max() becomes the top of
  /// the highest bucket that is left, at most what it was. On the recording thread.
  void subtract(const LogLinearHistogram& other) noexcept;

  /// Smallest bucket value with at least `fraction` (0..1] of all values at or below it; 0 if
  /// empty.
  std::uint64_t quantile(double fraction) const noexcept;

 private:
  static std::size_t bucket_of(std::uint64_t value) noexcept {
    if (value >> kMaxBits != 0) return kBuckets - 1;
    const unsigned width = static_cast<unsigned>(std::bit_width(value | 1));
    if (width <= kLinearBits) return static_cast<std::size_t>(value);
    const unsigned shift = width - kLinearBits - 1;
    // The top bit is implied by the row; the next kLinearBits select the step within it.
    const std::uint64_t step = (value >> shift) - (1U << kLinearBits);
    return ((static_cast<std::size_t>(shift) + 1) << kLinearBits) + static_cast<std::size_t>(step);
  }
  static std::uint64_t bucket_top(std::size_t bucket) noexcept;

  std::array<std::atomic<std::uint64_t>, kBuckets> buckets_{};
  std::atomic<std::uint64_t> max_{0};
};

/// Error below 1 %; 36 KiB. The buckets are those of an HdrHistogram of 2 significant digits up to
/// 2^42 - 1, in its order.
using Histogram = LogLinearHistogram<7>;
/// Error below 7 %; 5 KiB.
using CoarseHistogram = LogLinearHistogram<4>;

extern template class LogLinearHistogram<7>;
extern template class LogLinearHistogram<4>;

}  // namespace kelp
