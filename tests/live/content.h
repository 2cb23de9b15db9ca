// What the live test stores: bytes that follow from a few numbers, so that any reader can tell the
// right ones, those of the version before and wrong ones apart without keeping copies.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace kelp::live {

/// One version of an object. The default is "there is none".
struct Content {
  bool exists = false;
  bool text = false;  ///< compressible, and uploaded so that weed compresses it
  std::uint32_t bytes = 0;
  std::uint64_t version = 0;  ///< unique over all objects of the run
};

/// Random bytes and random words that contents are cut from. Immutable after construction; any
/// thread.
class Pool {
 public:
  static constexpr std::size_t kLargestBytes = 4 << 20;

  explicit Pool(std::uint64_t seed) {
    std::mt19937_64 random(seed);
    binary_.resize(2 * kLargestBytes);
    for (char& byte : binary_) byte = static_cast<char>(random());
    constexpr std::array kWords{"kelp ",  "holdfast ", "stipe ", "frond ",
                                "blade ", "tide ",     "reef\n"};
    while (text_.size() < 2 * kLargestBytes) text_ += kWords[random() % kWords.size()];
  }

  std::vector<char> make(const Content& content) const {
    std::vector<char> bytes(content.bytes);
    const Mark mark = mark_of(content);
    const std::size_t marked = std::min<std::size_t>(mark.size(), bytes.size());
    const auto rest = std::copy_n(mark.data(), marked, bytes.begin());
    std::copy_n(source(content) + marked, bytes.size() - marked, rest);
    return bytes;
  }

  /// Whether `bytes` are those of `content` from `offset` on.
  bool matches(const Content& content, std::size_t offset,
               std::span<const char> bytes) const noexcept {
    if (offset > content.bytes || bytes.size() > content.bytes - offset) return false;
    const Mark mark = mark_of(content);
    if (offset < mark.size()) {
      const std::size_t marked = std::min(mark.size() - offset, bytes.size());
      const auto rest = bytes.subspan(marked);
      if (!std::equal(bytes.begin(), rest.begin(), mark.data() + offset)) return false;
      bytes = rest;
      offset += marked;
    }
    return std::equal(bytes.begin(), bytes.end(), source(content) + offset);
  }

 private:
  // The version in 16 hex digits, the lowest first: even one byte differs between neighbouring
  // versions.
  using Mark = std::array<char, 16>;

  static Mark mark_of(const Content& content) noexcept {
    Mark mark;
    for (std::size_t i = 0; i < mark.size(); ++i) {
      mark[i] = "0123456789abcdef"[(content.version >> (4 * i)) & 15];
    }
    return mark;
  }

  const char* source(const Content& content) const noexcept {
    const std::size_t start = (content.version * 0x9e3779b97f4a7c15ULL) % kLargestBytes;
    return (content.text ? text_.data() : binary_.data()) + start;
  }

  std::vector<char> binary_;
  std::string text_;
};

/// Sizes as a store of mixed objects has them: many small, some of hundreds of KiB, few of MiB, now
/// and then none.
inline std::uint32_t random_size(std::minstd_rand& random) {
  const auto below = [&random](std::uint32_t limit) {
    return static_cast<std::uint32_t>(random()) % limit;
  };
  const std::uint32_t dice = below(1000);
  if (dice < 20) return 0;
  if (dice < 200) return 1 + below(64);
  if (dice < 650) return 1 + below(4096);
  if (dice < 900) return 1 + below(64 << 10);
  if (dice < 996) return 1 + below(256 << 10);
  return 1 + below(Pool::kLargestBytes);
}

}  // namespace kelp::live
