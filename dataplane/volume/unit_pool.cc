#include "dataplane/volume/unit_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace kelp {
namespace {

constexpr std::size_t kHugePageBytes = std::size_t{2} << 20;
constexpr std::size_t kLargestChunk = 8 * kHugePageBytes;
/// The newest chunk's tail is idle: a chunk is this part of what is there.
constexpr std::uint64_t kChunkShare = 32;
constexpr std::align_val_t kAlignment{64};

/// Aligned to 2 MiB, so that the kernel can back it by large pages.
void* map_huge(std::size_t bytes) noexcept {
  void* const mapped = ::mmap(nullptr, bytes + kHugePageBytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const begin = static_cast<std::byte*>(mapped);
  const std::size_t skip = -reinterpret_cast<std::uintptr_t>(mapped) % kHugePageBytes;
  if (skip > 0) ::munmap(begin, skip);
  ::munmap(begin + skip + bytes, kHugePageBytes - skip);
  ::madvise(begin + skip, bytes, MADV_HUGEPAGE);  // a kernel without them: small pages
  return begin + skip;
}

}  // namespace

struct UnitPool::Chunk {
  void* memory;
  std::size_t bytes;
  Chunk* next;
};

UnitPool::~UnitPool() {
  while (chunks_ != nullptr) {
    Chunk* const chunk = std::exchange(chunks_, chunks_->next);
    if (chunk->bytes >= kHugePageBytes) {
      ::munmap(chunk->memory, chunk->bytes);
    } else {
      ::operator delete(chunk->memory, kAlignment);
    }
    delete chunk;
  }
}

bool UnitPool::add_chunk() noexcept {
  const std::uint64_t size = std::max(bytes_, expected_bytes_);
  std::size_t bytes = std::min<std::uint64_t>(size / kChunkShare, kLargestChunk);
  bytes = std::max(bytes / unit_bytes_, std::size_t{1}) * unit_bytes_;
  const bool huge = bytes >= kHugePageBytes;
  if (huge) bytes = bytes / kHugePageBytes * kHugePageBytes;
  if (bytes_ + bytes > most_bytes_) return false;

  Chunk* const chunk = new (std::nothrow) Chunk{nullptr, bytes, chunks_};
  if (chunk == nullptr) return false;
  chunk->memory = huge ? map_huge(bytes) : ::operator new(bytes, kAlignment, std::nothrow);
  if (chunk->memory == nullptr) {
    delete chunk;
    return false;
  }
  chunks_ = chunk;
  next_ = static_cast<std::byte*>(chunk->memory);
  left_ = bytes / unit_bytes_;
  bytes_ += bytes;
  return true;
}

void* UnitPool::take() noexcept {
  if (free_ != nullptr) {
    void* const unit = free_;
    std::memcpy(&free_, unit, sizeof free_);
    return unit;
  }
  if (left_ == 0 && !add_chunk()) return nullptr;
  --left_;
  return std::exchange(next_, next_ + unit_bytes_);
}

void UnitPool::give_back(void* unit) noexcept {
  std::memcpy(unit, &free_, sizeof free_);
  free_ = unit;
}

}  // namespace kelp
