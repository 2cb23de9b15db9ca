// A worker that sleeps, and everything that must wake it.
#include <doctest/doctest.h>

#include <thread>

#include "support/raw_client.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

TestDaemonOptions sleeping(std::uint32_t spin_us = 0) {
  TestDaemonOptions options;
  options.drive = Drive::kThread;
  options.worker.spin_us = spin_us;
  return options;
}

std::uint64_t sleeps(TestDaemon& daemon) {
  return daemon.worker().counters().sleeps.value();
}

TEST_CASE("an idle worker sleeps and hardly uses its CPU") {
  TestDaemon daemon(sleeping(50));
  TestClient client(daemon);
  std::uint64_t used_ns = UINT64_MAX;
  // Time that a hypervisor takes away may count as the worker's: not three times.
  for (int i = 0; i < 3 && used_ns >= 100'000'000; ++i) {
    const std::uint64_t before = daemon.worker().cpu_time_ns();
    std::this_thread::sleep_for(std::chrono::milliseconds(1000));
    used_ns = daemon.worker().cpu_time_ns() - before;
  }
  // Spinning would be the whole second; 10 heartbeats are far below a tenth of it.
  CHECK(used_ns < 100'000'000);
  CHECK(sleeps(daemon) > 0);
}

TEST_CASE("an idle worker's heart goes on beating") {
  TestDaemon daemon(sleeping());
  RawClient client(daemon);
  const auto beats = [&] { return __atomic_load_n(&client.control().heartbeat, __ATOMIC_RELAXED); };
  const std::uint64_t before = beats();
  CHECK(eventually([&] { return beats() >= before + 3; }));
}

TEST_CASE("no request to a worker that falls asleep at once is lost, from clients that do too") {
  TestDaemon daemon(sleeping());
  TestClient client(daemon, 1, 1 << 20, 0);
  // A lost wake-up costs a heartbeat of 100 ms each, so that many of them take minutes.
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t tag = 0; tag < 20'000; ++tag) {
    REQUIRE(client.submit(client.nop(tag)) == KELP_OK);
    const auto done = client.reap();
    REQUIRE(done.size() == 1);
    REQUIRE(done[0].tag == tag);
  }
  CHECK(std::chrono::steady_clock::now() - start < 3 * kPatience);
  CHECK(sleeps(daemon) > 0);
  // One wake-up for each answer at most.
  CHECK(daemon.worker().counters().client_wakes.value() <= 20'000);
}

TEST_CASE("the first request of a ring just added finds the worker awake or wakes it") {
  TestDaemon daemon(sleeping());
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < 200; ++i) {
    TestClient client(daemon, 1, 64 * 1024, 0);
    REQUIRE(client.submit(client.nop(1)) == KELP_OK);
    REQUIRE(client.reap().size() == 1);
  }
  // 200 heartbeats would be 20 s.
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(15));
}

TEST_CASE("two sleeping clients and a sleeping worker keep each other going") {
  TestDaemon daemon(sleeping());
  const auto run = [&](int* answered) {
    TestClient client(daemon, 1, 64 * 1024, 0);
    for (std::uint64_t tag = 0; tag < 5000; ++tag) {
      if (client.submit(client.nop(tag)) != KELP_OK) return;
      if (client.reap().size() == 1) ++*answered;
    }
  };
  int one = 0;
  int two = 0;
  std::thread other([&] { run(&two); });
  run(&one);
  other.join();
  CHECK(one == 5000);
  CHECK(two == 5000);
}

TEST_CASE("an eventfd filled to the brim by its client stops nobody") {
  TestDaemon daemon(sleeping());
  RawClient hostile(daemon);
  TestClient client(daemon, 1, 64 * 1024, 0);
  const std::uint64_t most = UINT64_MAX - 1;
  REQUIRE(::write(hostile.fds[3].get(), &most, sizeof most) == sizeof most);
  for (std::uint64_t tag = 0; tag < 100; ++tag) {
    REQUIRE(client.submit(client.nop(tag)) == KELP_OK);
    REQUIRE(client.reap().size() == 1);
  }
}

TEST_CASE("a client that never reads its wake-ups stops nobody") {
  TestDaemon daemon(sleeping());
  RawClient hostile(daemon);
  TestClient client(daemon, 1, 64 * 1024, 0);
  Submission entry{};
  entry.op = OpCode::kNop;
  for (std::uint32_t i = 0; i < 2000; ++i) {
    __atomic_store_n(&hostile.control().client_sleeps, 1U, __ATOMIC_SEQ_CST);
    hostile.set_completion_head(i);
    hostile.put(i, entry);
    if (__atomic_exchange_n(&hostile.control().worker_sleeps, 0U, __ATOMIC_SEQ_CST) != 0) {
      const std::uint64_t one = 1;
      REQUIRE(::write(hostile.fds[3].get(), &one, sizeof one) == sizeof one);
    }
    REQUIRE(eventually([&] { return hostile.completion(i).sequence == i + 1; }));
  }
  REQUIRE(client.submit(client.nop(1)) == KELP_OK);
  CHECK(client.reap().size() == 1);
}

TEST_CASE("news of a volume wakes the worker that sleeps while reads wait for it") {
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  const kelp_fid fid = volume.put(1, 2, pattern(100, 1));
  TestDaemonOptions options = sleeping();
  options.worker.loader.directories = {{dir.path().string(), ""}};
  options.worker.reload_wait_us = 30'000'000;
  TestDaemon daemon(options);
  TestClient client(daemon, 1, 64 * 1024, 0);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  for (int i = 0; i < 20; ++i) {
    volume.vacuum();
    REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  }
}

}  // namespace
