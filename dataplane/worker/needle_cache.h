// Small needles that are read again and again, in memory: what was read, judged and found right
// once is not read again as long as it stays where it is.
//
// An entry is found by the generation of its volume, which is of one opening in one process, and by
// all its index row says. So it needs no invalidation: who overwrites, deletes, moves or vacuums
// changes the row or the generation, and whoever wants a needle has looked at both. Needles with a
// time to live are not kept.
//
// A needle is kept when it is read for the second time in a while. Belongs to one worker; allocates
// when it is made.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/transport/zeroed_pages.h"

namespace kelp {

class NeedleCache {
 public:
  /// The longest content that is kept.
  static constexpr std::size_t kMostBytes = 8 * 1024;

  /// Holds about `bytes` of memory. Throws std::bad_alloc.
  explicit NeedleCache(std::size_t bytes);

  struct Key {
    std::uint64_t generation = 0;
    std::uint64_t offset_bytes = 0;  ///< of the record, as the index says
    std::uint64_t needle = 0;
    std::uint32_t cookie = 0;
    std::int32_t body_bytes = 0;
    friend bool operator==(const Key&, const Key&) = default;
  };
  struct Content {
    std::span<const std::byte> bytes;
    std::uint32_t crc32c = 0;
  };
  /// What it holds stays until the next offer().
  std::optional<Content> find(const Key& key) noexcept;
  /// All of a needle's content, checked. True: it is kept.
  bool offer(const Key& key, const Content& content) noexcept;

 private:
  struct Entry {
    Key key;
    std::uint32_t bytes = 0;
    std::uint32_t crc32c = 0;
    bool used = false;     // since somebody looked for a place
    bool present = false;  // generation 0 is nobody's, but one need not rely on that
  };
  static constexpr std::size_t kWays = 4;

  static std::uint64_t hash_of(const Key& key) noexcept;
  std::span<Entry> set_of(std::uint64_t hash) noexcept;
  std::span<std::byte> memory_of(const Entry& entry) noexcept;
  Entry& place_in(std::span<Entry> set) noexcept;

  std::size_t set_mask_;
  std::vector<Entry> entries_;
  std::vector<std::uint32_t> seen_;  // a part of the hash of what was read once, by another part
  ZeroedPages memory_;
};

}  // namespace kelp
