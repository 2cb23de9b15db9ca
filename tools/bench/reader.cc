#include "tools/bench/reader.h"

namespace kelp::bench {

std::uint64_t Tally::error_count() const {
  std::uint64_t sum = 0;
  for (const auto& [name, count] : errors) sum += count;
  return sum;
}

void Tally::add(const Tally& other) {
  latency.add(other.latency);
  latency_sum_ns += other.latency_sum_ns;
  bytes += other.bytes;
  crc_verified += other.crc_verified;
  truncated += other.truncated;
  wrong += other.wrong;
  if (first_wrong.empty()) first_wrong = other.first_wrong;
  for (std::size_t i = 0; i < paths.size(); ++i) paths[i] += other.paths[i];
  for (const auto& [name, count] : other.errors) errors[name] += count;
}

Extent Work::extent(const RangePlan& plan, const Object& object, Random& random) const noexcept {
  if (plan.length == 0) return {0, static_cast<std::uint32_t>(buffer_bytes)};
  Extent extent{plan.offset, static_cast<std::uint32_t>(plan.length)};
  if (plan.random_offset) {
    const std::uint64_t last = object.total > plan.length ? object.total - plan.length : 0;
    extent.offset = random.below(last + 1);
  }
  return extent;
}

}  // namespace kelp::bench
