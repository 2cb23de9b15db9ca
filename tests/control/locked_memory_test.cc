#include "control/locked_memory.h"

#include <doctest/doctest.h>
#include <sys/resource.h>

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
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
  const auto found = lock_limit_bytes();
  if (limit.rlim_cur == RLIM_INFINITY) CHECK_FALSE(found);
  if (found) CHECK(*found == limit.rlim_cur);
}

TEST_CASE("what may be locked, and what would be, is in /devices") {
  using nlohmann::json;
  const auto locked = [](std::optional<std::uint64_t> limit) {
    return json::parse(kelp::devices_json({}, {1, 2}, limit))["locked_memory"];
  };
  CHECK(locked(3) == json{{"limit_bytes", 3}, {"pinned_bytes", 1}, {"program_bytes", 2}});
  CHECK(locked(std::nullopt)["limit_bytes"].is_null());
}
