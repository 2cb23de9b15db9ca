#include "dataplane/worker/needle_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace kelp {
namespace {

/// So many needles are remembered as read once, for each that can be kept.
constexpr std::size_t kSeenPerEntry = 4;

}  // namespace

NeedleCache::NeedleCache(std::size_t bytes)
    : set_mask_(std::bit_floor(std::max<std::size_t>(bytes / (kMostBytes * kWays), 1)) - 1),
      entries_((set_mask_ + 1) * kWays),
      seen_(entries_.size() * kSeenPerEntry),
      memory_(entries_.size() * kMostBytes) {
  // A wish: without huge pages it works as well, with more misses of the TLB.
  ::madvise(memory_.bytes().data(), memory_.bytes().size(), MADV_HUGEPAGE);
}

std::uint64_t NeedleCache::hash_of(const Key& key) noexcept {
  std::uint64_t hash = key.generation * 0x9e3779b97f4a7c15ULL;
  hash = (hash ^ key.offset_bytes ^ (hash >> 29)) * 0xbf58476d1ce4e5b9ULL;
  hash = (hash ^ key.needle ^ (hash >> 32)) * 0x94d049bb133111ebULL;
  return hash ^ (hash >> 31);
}

std::span<NeedleCache::Entry> NeedleCache::set_of(std::uint64_t hash) noexcept {
  return std::span(entries_).subspan((hash & set_mask_) * kWays, kWays);
}

std::span<std::byte> NeedleCache::memory_of(const Entry& entry) noexcept {
  const auto index = static_cast<std::size_t>(&entry - entries_.data());
  return memory_.bytes().subspan(index * kMostBytes, kMostBytes);
}

std::optional<NeedleCache::Content> NeedleCache::find(const Key& key) noexcept {
  for (Entry& each : set_of(hash_of(key))) {
    if (!each.present || each.key != key) continue;
    each.used = true;
    return Content{memory_of(each).first(each.bytes), each.crc32c};
  }
  return std::nullopt;
}

/// The first one nobody has used since this was last asked.
NeedleCache::Entry& NeedleCache::place_in(std::span<Entry> set) noexcept {
  const auto free = std::ranges::find_if(set, [](const Entry& each) { return !each.used; });
  for (Entry& each : set) each.used = false;
  return free != set.end() ? *free : set.front();
}

bool NeedleCache::offer(const Key& key, const Content& content) noexcept {
  if (content.bytes.size() > kMostBytes) return false;
  const std::uint64_t hash = hash_of(key);
  std::uint32_t& seen = seen_[(hash >> 8) % seen_.size()];
  const auto mark = static_cast<std::uint32_t>(hash >> 32) | 1U;
  if (seen != mark) {
    seen = mark;
    return false;
  }
  const std::span<Entry> set = set_of(hash);
  const auto there =
      std::ranges::find_if(set, [&](const Entry& each) { return each.present && each.key == key; });
  if (there != set.end()) return true;
  Entry& entry = place_in(set);
  entry.key = key;
  entry.bytes = static_cast<std::uint32_t>(content.bytes.size());
  entry.crc32c = content.crc32c;
  entry.used = entry.present = true;
  if (!content.bytes.empty())
    std::memcpy(memory_of(entry).data(), content.bytes.data(), content.bytes.size());
  return true;
}

}  // namespace kelp
