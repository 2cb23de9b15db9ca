#include "control/locked_memory.h"

#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "control/daemon_options.h"
#include "dataplane/memory/region_keys.h"

namespace kelp {
namespace {

/// Frames, queues and completions of a connection of 64 slots, rounded up.
constexpr std::uint64_t kConnectionBytes = 300 << 10;

bool may_lock_all() {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> held{};
  if (::syscall(SYS_capget, &header, held.data()) != 0) return false;
  return (held[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

}  // namespace

LockedMemory locked_memory(const Config& config) {
  const bool listens = !config.rdma.listen.empty();
  const bool asks =
      config.rdma.use && (!config.peer.kelpds.empty() || !config.gateway.masters.empty());
  const std::uint64_t workers = worker_count(config);
  LockedMemory need;
  if (listens) need.pinned_bytes += workers * (config.rdma.arena_bytes + kConnectionBytes);
  if (!asks) return need;
  need.pinned_bytes += workers * kConnectionBytes;
  const std::size_t domains =
      config.rdma.pd_per_peer
          ? std::clamp<std::size_t>(config.peer.kelpds.size(), 1, RegionKeys::kMostDomains)
          : 1;
  need.program_bytes = config.client.max_data_bytes * domains;
  return need;
}

std::optional<std::uint64_t> lock_limit_bytes() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0) return std::nullopt;
  if (limit.rlim_cur == RLIM_INFINITY || may_lock_all()) return std::nullopt;
  return limit.rlim_cur;
}

std::optional<std::string> lock_shortage(const LockedMemory& need,
                                         std::optional<std::uint64_t> limit_bytes) {
  const std::uint64_t least = need.pinned_bytes + need.program_bytes;
  if (!limit_bytes || *limit_bytes >= least) return std::nullopt;
  return "RDMA needs " + std::to_string(least) + " bytes of locked memory or more (" +
         std::to_string(need.pinned_bytes) + " for arenas and connections, up to " +
         std::to_string(need.program_bytes) + " for each program), and RLIMIT_MEMLOCK is " +
         std::to_string(*limit_bytes) + ": what does not fit is read over TCP";
}

}  // namespace kelp
