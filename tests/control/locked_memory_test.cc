#include "control/locked_memory.h"

#include <doctest/doctest.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <nlohmann/json.hpp>

#include "control/devices_json.h"

using kelp::Config;
using kelp::lock_limit_bytes;
using kelp::lock_shortage;
using kelp::locked_memory;
using kelp::LockedMemory;

namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kConnection = 300 << 10;

Config with_workers(int count) {
  Config config;
  for (int cpu = 0; cpu < count; ++cpu) config.worker.cpus.push_back(cpu);
  config.rdma.arena_bytes = 64 * kMiB;
  config.client.max_data_bytes = 100 * kMiB;
  return config;
}

/// In a process of its own: 0 where a limit is told exactly when there is one that counts.
int told_right() {
  constexpr rlim_t kLimit = 64 << 10;
  rlimit limit{};
  if (::getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_max < kLimit) return 1;
  limit.rlim_cur = kLimit;
  if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 2;

  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> held{};
  if (::syscall(SYS_capget, &header, held.data()) != 0) return 3;
  std::uint32_t& effective = held[CAP_TO_INDEX(CAP_IPC_LOCK)].effective;
  const bool may_lock_all = (effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
  if (may_lock_all && kelp::lock_limit_bytes()) return 4;
  effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
  if (::syscall(SYS_capset, &header, held.data()) != 0) return 5;
  return kelp::lock_limit_bytes() == kLimit ? 0 : 6;
}

}  // namespace

TEST_CASE("without RDMA nothing is pinned") {
  CHECK(locked_memory(with_workers(2)).pinned_bytes == 0);
  Config gateway = with_workers(2);
  gateway.gateway.masters = {"10.0.0.1:9333"};
  gateway.rdma.use = false;
  CHECK(locked_memory(gateway).pinned_bytes == 0);
  CHECK(locked_memory(gateway).program_bytes == 0);
}

TEST_CASE("a target pins an arena for each worker, and a gateway the data areas of programs") {
  Config target = with_workers(3);
  target.rdma.listen = {"10.0.0.5:18515"};
  CHECK(locked_memory(target).pinned_bytes == 3 * (64 * kMiB + kConnection));
  CHECK(locked_memory(target).program_bytes == 0);
  Config gateway = with_workers(3);
  gateway.gateway.masters = {"10.0.0.1:9333"};
  CHECK(locked_memory(gateway).pinned_bytes == 3 * kConnection);
  CHECK(locked_memory(gateway).program_bytes == 100 * kMiB);
}

TEST_CASE("with domains for each peer, areas are pinned for each configured one, or for one") {
  Config gateway = with_workers(1);
  gateway.gateway.masters = {"10.0.0.1:9333"};
  gateway.rdma.pd_per_peer = true;
  CHECK(locked_memory(gateway).program_bytes == 100 * kMiB);
  gateway.peer.kelpds = {"10.0.0.5:18516", "10.0.0.6:18516"};
  CHECK(locked_memory(gateway).program_bytes == 200 * kMiB);
}

TEST_CASE("a limit below the need is told before anything fails, with the need and the limit") {
  const LockedMemory need{64 * kMiB, 100 * kMiB};
  CHECK_FALSE(lock_shortage(need, std::nullopt));
  CHECK_FALSE(lock_shortage(need, 164 * kMiB));
  CHECK_FALSE(lock_shortage({}, 0));
  const auto shortage = lock_shortage(need, 164 * kMiB - 1);
  REQUIRE(shortage);
  CHECK(shortage->find("needs 171966464 bytes") != std::string::npos);
  CHECK(shortage->find("RLIMIT_MEMLOCK is 171966463") != std::string::npos);
}

TEST_CASE("the limit is that of the process, and none for who may lock all") {
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) ::_exit(told_right());
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("what may be locked, and what would be, is in /devices") {
  using nlohmann::json;
  const auto locked = [](std::optional<std::uint64_t> limit) {
    return json::parse(kelp::devices_json({}, {1, 2}, limit))["locked_memory"];
  };
  CHECK(locked(3) == json{{"limit_bytes", 3}, {"pinned_bytes", 1}, {"program_bytes", 2}});
  CHECK(locked(std::nullopt)["limit_bytes"].is_null());
}
