#include "shm_ring/mapping.h"

#include <sys/mman.h>

namespace kelp {

Mapping::~Mapping() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

Result<Mapping> Mapping::map_shared(int fd, std::size_t bytes, const std::string& what) {
  void* base = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (base == MAP_FAILED) {
    return system_error("cannot map " + std::to_string(bytes) + " bytes of " + what);
  }
  Mapping mapping(static_cast<std::byte*>(base), bytes);
  if (::madvise(base, bytes, MADV_DONTFORK) != 0) {
    return system_error("cannot keep " + what + " from children of fork()");
  }
  return mapping;
}

}  // namespace kelp
