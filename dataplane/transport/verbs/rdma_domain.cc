#include "dataplane/transport/verbs/rdma_domain.h"

#include <sys/resource.h>

#include <cerrno>
#include <fstream>
#include <sstream>

namespace kelp {
namespace {

/// Of /proc/self/status, in bytes; 0: it has none.
std::uint64_t status_bytes(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (!line.starts_with(name + ":")) continue;
    std::istringstream field(line.substr(name.size() + 1));
    std::uint64_t kib = 0;
    field >> kib;
    return kib * 1024;
  }
  return 0;
}

}  // namespace

Result<std::shared_ptr<RdmaDomain>> RdmaDomain::create(ibv_context* device, std::uint32_t index) {
  ibv_pd* const pd = ::ibv_alloc_pd(device);
  if (pd == nullptr) return system_error("cannot allocate a protection domain");
  return std::shared_ptr<RdmaDomain>(new RdmaDomain(device, index, pd));
}

RdmaDomain::~RdmaDomain() {
  ::ibv_dealloc_pd(pd);
}

Result<RegisteredMemory> RegisteredMemory::create(std::shared_ptr<RdmaDomain> domain,
                                                  std::span<std::byte> memory, Reach reach) {
  int access = IBV_ACCESS_LOCAL_WRITE;
  if (reach == Reach::kRemoteWrite) access |= IBV_ACCESS_REMOTE_WRITE;
  RegisteredMemory made;
  made.region_.reset(::ibv_reg_mr(domain->pd, memory.data(), memory.size(), access));
  if (made.region_ == nullptr) {
    const int error = errno;
    const std::string what =
        "cannot register " + std::to_string(memory.size()) + " bytes with the RDMA device";
    const bool of_locks = error == ENOMEM || error == EAGAIN || error == EPERM;
    return system_error(of_locks ? what + " (" + lock_limits(memory.size()) + ")" : what, error);
  }
  made.domain_ = std::move(domain);
  return made;
}

std::string lock_limits(std::uint64_t bytes) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return "its memory cannot be locked";
  const std::uint64_t locked = status_bytes("VmLck") + status_bytes("VmPin");
  if (limit.rlim_cur == RLIM_INFINITY) return "the limit of locked memory is infinite";
  return "RLIMIT_MEMLOCK is " + std::to_string(limit.rlim_cur) + " bytes, " +
         std::to_string(locked) + " are locked; with this it would have to be " +
         std::to_string(locked + bytes) + " or more: LimitMEMLOCK= of the service, ulimit -l";
}

}  // namespace kelp
