#include "dataplane/memory/arena.h"

#include <bit>

namespace kelp {

Arena::Arena(std::span<std::byte> memory) : memory_(memory), chunks_(memory.size() / kChunkBytes) {
  with_room_.fill(kNone);
  for (std::size_t chunk = chunks_.size(); chunk-- > 0;) {
    link(empty_, static_cast<std::uint32_t>(chunk));
  }
}

void Arena::link(std::uint32_t& list, std::uint32_t chunk) noexcept {
  chunks_[chunk].previous = kNone;
  chunks_[chunk].next = list;
  if (list != kNone) chunks_[list].previous = chunk;
  list = chunk;
}

void Arena::unlink(std::uint32_t& list, std::uint32_t chunk) noexcept {
  const Chunk& out = chunks_[chunk];
  (out.previous == kNone ? list : chunks_[out.previous].next) = out.next;
  if (out.next != kNone) chunks_[out.next].previous = out.previous;
}

std::optional<std::span<std::byte>> Arena::take(std::size_t bytes) noexcept {
  if (bytes == 0 || bytes > kChunkBytes) return std::nullopt;
  const std::size_t units = (bytes + kSmallestBytes - 1) / kSmallestBytes;
  const auto kind = static_cast<std::size_t>(std::bit_width(units - 1));
  const std::size_t blocks = kChunkBytes / block_bytes(kind);
  if (with_room_[kind] == kNone) {
    if (empty_ == kNone) return std::nullopt;
    const std::uint32_t fresh = empty_;
    unlink(empty_, fresh);
    Chunk& chunk = chunks_[fresh];
    chunk.kind = kind;
    chunk.free.fill(0);
    for (std::size_t word = 0; word < blocks / 64; ++word) chunk.free[word] = ~std::uint64_t{0};
    if (blocks < 64) chunk.free[0] = (std::uint64_t{1} << blocks) - 1;
    link(with_room_[kind], fresh);
  }
  const std::uint32_t index = with_room_[kind];
  Chunk& chunk = chunks_[index];
  std::size_t word = 0;
  while (chunk.free[word] == 0) ++word;
  const std::size_t block =
      word * 64 + static_cast<std::size_t>(std::countr_zero(chunk.free[word]));
  chunk.free[word] &= chunk.free[word] - 1;
  if (++chunk.taken == blocks) unlink(with_room_[kind], index);
  taken_bytes_ += block_bytes(kind);
  return memory_.subspan(index * kChunkBytes + block * block_bytes(kind), bytes);
}

void Arena::give_back(const std::byte* block) noexcept {
  const auto at = static_cast<std::size_t>(block - memory_.data());
  const auto index = static_cast<std::uint32_t>(at / kChunkBytes);
  Chunk& chunk = chunks_[index];
  const std::size_t number = at % kChunkBytes / block_bytes(chunk.kind);
  const std::size_t blocks = kChunkBytes / block_bytes(chunk.kind);
  if (chunk.taken == blocks) link(with_room_[chunk.kind], index);
  chunk.free[number / 64] |= std::uint64_t{1} << number % 64;
  taken_bytes_ -= block_bytes(chunk.kind);
  if (--chunk.taken != 0) return;
  unlink(with_room_[chunk.kind], index);
  link(empty_, index);
}

}  // namespace kelp
