// What one client gets of a worker: its turn, and what it may have in work.
#include <doctest/doctest.h>

#include <memory>

#include "dataplane/worker/while_committing.h"
#include "support/raw_client.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;

Submission nop() {
  Submission entry{};
  entry.op = OpCode::kNop;
  return entry;
}

Submission read(std::uint32_t length = 4096) {
  Submission entry{};
  entry.op = OpCode::kRead;
  entry.volume = 3;
  entry.needle = 1;
  entry.length_bytes = length;
  return entry;
}

TestDaemonOptions stepped(std::uint32_t ring_entries) {
  TestDaemonOptions options;
  options.drive = TestDaemonOptions::Drive::kStepped;
  options.ring_entries = ring_entries;
  return options;
}

/// A daemon whose only volume cannot be read while a vacuum has replaced one file and not yet the
/// other: reads of it stay in work.
struct Stuck {
  explicit Stuck(TestDaemonOptions options) : volume(dir.path(), 3) {
    volume.put(1, 0, pattern(100, 1));
    options.worker.loader.directories = {{dir.path().string(), ""}};
    options.worker.reload_wait_us = 60'000'000;
    daemon = std::make_unique<TestDaemon>(options);
    daemon->step_until([&] { return daemon->worker().loader().settled(); });
    daemon->step_until([] { return true; });
    commit_began = std::chrono::steady_clock::now();
    volume.begin_commit();
  }
  void steps() {
    for (int i = 0; i < 50; ++i) daemon->step();
  }
  std::uint64_t taken() { return daemon->worker().counters().reads.value(); }
  /// False: it may have been given up before, and its reads been answered.
  bool release() {
    volume.unmark_compaction();
    return is_waited_for(commit_began);
  }
  bool answered(const RawClient& client, std::uint32_t count) {
    return daemon->step_until([&] { return client.completion(count - 1).sequence == count; });
  }

  TempDir dir;
  SmallVolume volume;
  std::unique_ptr<TestDaemon> daemon;
  std::chrono::steady_clock::time_point commit_began;
};

TEST_CASE("a client with 64 channels gets no more of a turn than one with a single one") {
  TestDaemon daemon(stepped(64));
  RawClient many(daemon, 64);
  RawClient one(daemon);
  for (int ring = 0; ring < 65; ++ring) daemon.step();  // a turn takes one of them
  for (std::uint32_t index = 0; index < 32; ++index) {
    one.put(index, nop());
    for (std::uint32_t ring = 0; ring < 64; ++ring) many.put(index, nop(), ring);
  }
  const auto answered = [](const RawClient& client, std::uint32_t rings) {
    std::uint32_t count = 0;
    for (std::uint32_t ring = 0; ring < rings; ++ring) {
      for (std::uint32_t i = 0; i < 32; ++i) count += client.completion(i, ring).sequence == i + 1;
    }
    return count;
  };
  for (int turn = 0; turn < 40 && answered(one, 1) < 32; ++turn) {
    daemon.step();
    const std::uint32_t ahead = answered(many, 64) - answered(one, 1);
    REQUIRE(static_cast<std::int32_t>(ahead) <= 4);
    REQUIRE(static_cast<std::int32_t>(ahead) >= -4);
  }
  REQUIRE(answered(one, 1) == 32);
  // Its channels take turns.
  for (int i = 0; i < 100; ++i) daemon.step();
  for (std::uint32_t ring = 0; ring < 64; ++ring) {
    CHECK(many.completion(0, ring).sequence == 1);
    CHECK(many.completion(31, ring).sequence != 32);
  }
  CHECK(daemon.step_until([&] { return answered(many, 64) == 64 * 32; }));
}

TEST_CASE("who submits one request at a time waits for one of a queue, and the queue goes on") {
  TestDaemon daemon(stepped(256));
  RawClient queue(daemon, 4);
  RawClient alone(daemon);
  for (int ring = 0; ring < 5; ++ring) daemon.step();  // a turn takes one of them
  for (std::uint32_t index = 0; index < 200; ++index) {
    for (std::uint32_t ring = 0; ring < 4; ++ring) queue.put(index, nop(), ring);
  }
  const auto of_queue = [&] {
    std::uint32_t count = 0;
    for (std::uint32_t ring = 0; ring < 4; ++ring) {
      for (std::uint32_t i = 0; i < 200; ++i) count += queue.completion(i, ring).sequence == i + 1;
    }
    return count;
  };
  // The first of them shows the worker that there are two.
  for (std::uint32_t index = 0; index < 200; ++index) {
    const std::uint32_t before = of_queue();
    alone.put(index, nop());
    daemon.step();
    REQUIRE(alone.completion(index).sequence == index + 1);
    if (index > 0) REQUIRE(of_queue() - before <= 1);
  }
  CHECK(of_queue() >= 199);
  CHECK(daemon.step_until([&] { return of_queue() == 800; }));
}

TEST_CASE("a client with all the requests in work it may have waits in its ring, others do not") {
  TestDaemonOptions options = stepped(8);
  options.worker.client_requests = 3;
  while_committing([&] {
    Stuck stuck(options);
    RawClient greedy(*stuck.daemon, 2);
    RawClient other(*stuck.daemon);
    for (std::uint32_t index = 0; index < 4; ++index) {
      for (std::uint32_t ring = 0; ring < 2; ++ring) greedy.put(index, read(), ring);
    }
    stuck.steps();
    const std::uint64_t of_greedy = stuck.taken();
    other.put(0, read());
    other.put(1, nop());
    stuck.steps();
    const std::uint64_t of_both = stuck.taken();
    const Completion first_of_other = other.completion(0);
    if (!stuck.release()) return false;
    CHECK(of_greedy == 3);
    CHECK(of_both == 4);
    CHECK(first_of_other.status == KELP_OK);  // the no-op overtakes
    CHECK(stuck.daemon->step_until([&] { return stuck.taken() == 9; }));
    for (std::uint32_t ring = 0; ring < 2; ++ring) {
      CHECK(stuck.daemon->step_until([&] { return greedy.completion(3, ring).sequence == 4; }));
    }
    CHECK(stuck.daemon->broken_rings() == 0);
    return true;
  });
}

TEST_CASE("no request is taken while those in work have buffers of as many bytes as allowed") {
  TestDaemonOptions options = stepped(8);
  options.worker.client_bytes = 100'000;
  while_committing([&] {
    Stuck stuck(options);
    RawClient client(*stuck.daemon);
    for (std::uint32_t index = 0; index < 4; ++index) client.put(index, read(60'000));
    stuck.steps();
    const std::uint64_t taken = stuck.taken();
    if (!stuck.release()) return false;
    CHECK(taken == 2);
    CHECK(stuck.answered(client, 4));
    return true;
  });
}

TEST_CASE(
    "a request with a larger buffer than a client may have in work is answered all the same") {
  TestDaemonOptions options = stepped(4);
  options.worker.client_bytes = 100'000;
  Stuck stuck(options);
  RawClient client(*stuck.daemon);
  stuck.release();
  client.put(0, read(1'000'000));
  client.put(1, read(1'000'000));
  CHECK(stuck.answered(client, 2));
}

TEST_CASE("clients that hold nearly all ops leave some to one that comes later") {
  TestDaemonOptions options = stepped(64);
  options.worker.ops = 64;
  while_committing([&] {
    Stuck stuck(options);
    RawClient hog(*stuck.daemon, 2);
    for (std::uint32_t index = 0; index < 40; ++index) {
      for (std::uint32_t ring = 0; ring < 2; ++ring) hog.put(index, read(), ring);
    }
    stuck.steps();
    const std::uint64_t of_hog = stuck.taken();
    RawClient second(*stuck.daemon);
    RawClient third(*stuck.daemon);
    for (const RawClient* each : {&second, &third}) each->put(0, nop());
    stuck.steps();
    const Completion first_of_second = second.completion(0);
    const Completion first_of_third = third.completion(0);
    const std::uint64_t before = stuck.taken();
    for (const RawClient* each : {&second, &third}) each->put(1, read());
    stuck.steps();
    const std::uint64_t after = stuck.taken();
    if (!stuck.release()) return false;
    CHECK(of_hog >= 40);
    CHECK(of_hog <= 49);
    CHECK(first_of_second.sequence == 1);
    CHECK(first_of_third.sequence == 1);
    CHECK(after == before + 2);
    CHECK(stuck.daemon->step_until([&] { return stuck.taken() == 82; }));
    return true;
  });
}

TEST_CASE("what a client that left had in work is off the count") {
  Stuck stuck(stepped(8));
  auto leaver = std::make_unique<RawClient>(*stuck.daemon);
  for (std::uint32_t index = 0; index < 4; ++index) leaver->put(index, read());
  stuck.steps();
  leaver.reset();
  REQUIRE(stuck.daemon->step_until([&] { return stuck.daemon->clients() == 0; }));
  stuck.release();
  RawClient next(*stuck.daemon);
  next.put(0, read());
  CHECK(stuck.answered(next, 1));
}

}  // namespace
