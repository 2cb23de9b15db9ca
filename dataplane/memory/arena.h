// Blocks of one stretch of memory, for what moves through it: a block is as long as was asked for,
// rounded up to a power of two, and comes from a chunk of blocks of that length.
//
// Belongs to one worker. Allocates only when it is made. Fragmentation is bounded: a chunk that
// is empty again may be cut into blocks of another length.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace kelp {

class Arena {
 public:
  static constexpr std::size_t kChunkBytes = 1 << 20;  ///< the longest block
  static constexpr std::size_t kSmallestBytes = 4096;

  /// Blocks of `memory`, which outlives it. What is no whole chunk is not used.
  explicit Arena(std::span<std::byte> memory);

  /// `bytes` from 1 to kChunkBytes; nullopt: there is no such block now.
  std::optional<std::span<std::byte>> take(std::size_t bytes) noexcept;
  /// Once: anything inside a block that was taken names it.
  void give_back(const std::byte* block) noexcept;

  std::size_t taken_bytes() const noexcept { return taken_bytes_; }

 private:
  static constexpr std::size_t kKinds = 9;  // 4 KiB to 1 MiB
  static constexpr std::size_t kMostBlocks = kChunkBytes / kSmallestBytes;
  static constexpr std::uint32_t kNone = UINT32_MAX;

  struct Chunk {
    std::size_t kind = 0;
    std::uint32_t taken = 0;     // of its blocks; 0: of no kind
    std::uint32_t next = kNone;  // with blocks of its kind, or empty
    std::uint32_t previous = kNone;
    std::array<std::uint64_t, kMostBlocks / 64> free{};  // a bit for each block
  };
  static constexpr std::size_t block_bytes(std::size_t kind) { return kSmallestBytes << kind; }

  void link(std::uint32_t& list, std::uint32_t chunk) noexcept;
  void unlink(std::uint32_t& list, std::uint32_t chunk) noexcept;

  const std::span<std::byte> memory_;
  std::vector<Chunk> chunks_;
  std::uint32_t empty_ = kNone;
  std::array<std::uint32_t, kKinds> with_room_;  // chunks of each kind that have a free block
  std::size_t taken_bytes_ = 0;
};

}  // namespace kelp
