#include "shm_ring/histogram.h"

#include <algorithm>
#include <cmath>

namespace kelp {

template <unsigned kLinearBits>
std::uint64_t LogLinearHistogram<kLinearBits>::count() const noexcept {
  std::uint64_t sum = 0;
  for (const auto& bucket : buckets_) sum += bucket.load(std::memory_order_relaxed);
  return sum;
}

template <unsigned kLinearBits>
void LogLinearHistogram<kLinearBits>::add(const LogLinearHistogram& other) noexcept {
  for (std::size_t i = 0; i < kBuckets; ++i) {
    if (const std::uint64_t more = other.count_in(i); more != 0) {
      buckets_[i].store(count_in(i) + more, std::memory_order_relaxed);
    }
  }
  max_.store(std::max(max(), other.max()), std::memory_order_relaxed);
}

template <unsigned kLinearBits>
void LogLinearHistogram<kLinearBits>::subtract(const LogLinearHistogram& other) noexcept {
  std::uint64_t highest = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    const std::uint64_t left = count_in(i) - std::min(count_in(i), other.count_in(i));
    buckets_[i].store(left, std::memory_order_relaxed);
    if (left != 0) highest = bucket_top(i);
  }
  max_.store(std::min(max(), highest), std::memory_order_relaxed);
}

template <unsigned kLinearBits>
std::uint64_t LogLinearHistogram<kLinearBits>::bucket_top(std::size_t bucket) noexcept {
  const std::size_t row = bucket >> kLinearBits;
  const std::uint64_t step = bucket & ((1U << kLinearBits) - 1);
  if (row == 0) return step;
  const unsigned shift = static_cast<unsigned>(row) - 1;
  return (((1ULL << kLinearBits) + step + 1) << shift) - 1;
}

template <unsigned kLinearBits>
std::uint64_t LogLinearHistogram<kLinearBits>::quantile(double fraction) const noexcept {
  const std::uint64_t all = count();
  if (all == 0) return 0;
  const auto wanted = static_cast<std::uint64_t>(std::ceil(fraction * static_cast<double>(all)));
  std::uint64_t seen = 0;
  for (std::size_t i = 0; i < kBuckets; ++i) {
    seen += buckets_[i].load(std::memory_order_relaxed);
    if (seen >= std::max<std::uint64_t>(wanted, 1)) return std::min(bucket_top(i), max());
  }
  return max();
}

template class LogLinearHistogram<7>;
template class LogLinearHistogram<4>;

}  // namespace kelp
