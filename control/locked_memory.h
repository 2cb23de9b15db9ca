// What RDMA will pin, as far as the configuration tells, and what this process may lock: said
// before a registration fails. Any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "control/config.h"

namespace kelp {

struct LockedMemory {
  std::uint64_t pinned_bytes = 0;   ///< before a program comes: arenas and connections
  std::uint64_t program_bytes = 0;  ///< a program adds up to this
};

/// Sizes times regions, over a target's arenas, a connection of each worker in each role, and one
/// program's data area: on one device, and of domains for each peer those of configured ones. With
/// io_uring nothing is registered.
LockedMemory locked_memory(const Config& config);

/// RLIMIT_MEMLOCK; nothing: there is no limit, also by CAP_IPC_LOCK. After privileges are dropped.
std::optional<std::uint64_t> lock_limit_bytes();

/// Where the limit is lower than what one program would take: a sentence with both.
std::optional<std::string> lock_shortage(const LockedMemory& need,
                                         std::optional<std::uint64_t> limit_bytes);

inline constexpr const char* kLockRemedy =
    "LimitMEMLOCK=infinity of the service, or ulimit -l unlimited";

}  // namespace kelp
