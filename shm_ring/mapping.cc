#include "shm_ring/mapping.h"

#include <sys/mman.h>
#include <sys/stat.h>

namespace kelp {

Mapping::~Mapping() {
  if (base_ != nullptr) ::munmap(base_, bytes_);
}

Result<Mapping> Mapping::map_shared(int fd, std::size_t bytes, const std::string& what) {
  struct stat facts {};
  if (::fstat(fd, &facts) != 0) return system_error("cannot stat " + what);
  // Beyond the end of its file a mapping is a SIGBUS waiting to happen.
  if (facts.st_size < 0 || static_cast<std::uint64_t>(facts.st_size) < bytes) {
    return plain_error(what + " are " + std::to_string(facts.st_size) + " bytes, not " +
                       std::to_string(bytes));
  }
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
