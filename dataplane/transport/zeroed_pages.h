// Private memory of a size, of which only the pages that are used cost anything.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <span>

namespace kelp {

class ZeroedPages {
 public:
  /// Throws std::bad_alloc. 0 bytes: nothing.
  explicit ZeroedPages(std::size_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    void* const made = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made == MAP_FAILED) throw std::bad_alloc();
    memory_ = static_cast<std::byte*>(made);
  }
  ~ZeroedPages() {
    if (memory_ != nullptr) ::munmap(memory_, bytes_);
  }
  ZeroedPages(const ZeroedPages&) = delete;
  ZeroedPages& operator=(const ZeroedPages&) = delete;

  std::span<std::byte> bytes() const noexcept { return {memory_, bytes_}; }

 private:
  std::size_t bytes_;
  std::byte* memory_ = nullptr;
};

}  // namespace kelp
