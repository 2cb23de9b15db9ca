// The worker's bookkeeping: fairness, removal, drain, and that nothing is lost over many requests.
#include "dataplane/worker/worker.h"

#include <doctest/doctest.h>

#include <vector>

#include "support/raw_client.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

TestDaemonOptions stepped(std::uint32_t ops = 4096) {
  TestDaemonOptions options;
  options.drive = Drive::kStepped;
  options.worker.ops = ops;
  return options;
}

Submission nop(std::uint64_t tag) {
  Submission entry{};
  entry.op = OpCode::kNop;
  entry.tag = tag;
  return entry;
}

Submission read_of(std::uint32_t volume, std::uint64_t tag) {
  Submission entry{};
  entry.op = OpCode::kRead;
  entry.tag = tag;
  entry.volume = volume;
  entry.needle = 1;
  entry.length_bytes = 4096;
  return entry;
}

TEST_CASE("a hundred thousand requests of all kinds leave every op free") {
  // With as few ops as the ring has places one lost op would stop everything soon.
  TestDaemonOptions options;
  options.worker.ops = 4;
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  const kelp_fid fid = volume.put(1, 2, pattern(500, 1));
  options.worker.loader.directories = {{dir.path().string(), ""}};
  TestDaemon daemon(options);
  TestClient client(daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  std::uint64_t submitted = 0;
  std::uint64_t done = 0;
  std::uint64_t wrong = 0;
  constexpr std::uint64_t kRequests = 100'000;
  while (done < kRequests) {
    for (; submitted < kRequests; ++submitted) {
      kelp_request request = client.nop(submitted);
      if (submitted % 4 != 0) {
        // Four disjoint parts of the buffer.
        request = client.read(fid, submitted, 16 * 1024);
        request.buffer = static_cast<std::byte*>(client.buffer) + submitted % 4 * 16 * 1024;
        if (submitted % 4 == 2) request.fid.cookie = 99;
        if (submitted % 4 == 3) request.op = KELP_OP_STAT;
      }
      if (client.submit(request) != KELP_OK) break;
    }
    for (const kelp_completion& each : client.reap()) {
      ++done;
      const auto expected = each.tag % 4 == 2 ? KELP_WRONG_COOKIE : KELP_OK;
      if (each.status != expected) ++wrong;
    }
    REQUIRE(client.last_status == KELP_OK);
  }
  CHECK(wrong == 0);
  CHECK(daemon.worker().counters().nops.value() == kRequests / 4);
}

TEST_CASE("a ring that floods does not starve a quiet one") {
  TestDaemon daemon(stepped(8));
  RawClient flood(daemon, 3);
  RawClient quiet(daemon);
  std::uint32_t flooded[3]{};
  std::uint32_t answered = 0;
  for (int ring = 0; ring < 4; ++ring) daemon.step();  // a turn takes one of them
  for (int turn = 0; turn < 400; ++turn) {
    for (std::uint32_t ring = 0; ring < 3; ++ring) {
      flood.set_completion_head(flooded[ring], ring);  // everything so far is reaped
      for (int i = 0; i < 4; ++i) flood.put(flooded[ring]++, nop(1), ring);
    }
    quiet.set_completion_head(answered);
    quiet.put(answered, nop(1000 + answered));
    // Four rings and a start that moves on each turn: at most as many turns as there are rings.
    for (int i = 0; i < 4; ++i) daemon.step();
    REQUIRE(quiet.completion(answered).sequence == answered + 1);
    REQUIRE(quiet.completion(answered).tag == 1000 + answered);
    ++answered;
    for (int i = 0; i < 12; ++i) daemon.step();  // the rest of the flood
  }
  CHECK(daemon.worker().counters().nops.value() == 400 * 13);
}

TEST_CASE("a client that leaves with requests in flight gets its memory freed when they end") {
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  volume.put(1, 0, pattern(100, 1));
  TestDaemonOptions options = stepped();
  options.worker.loader.directories = {{dir.path().string(), ""}};
  options.worker.reload_wait_us = 60'000'000;
  TestDaemon daemon(options);
  auto leaver = std::make_unique<RawClient>(daemon);
  REQUIRE(daemon.step_until([&] { return daemon.worker().loader().settled(); }));
  daemon.step_until([&] { return true; });
  // A vacuum that does not end: reads wait for the volume as long as they are allowed to.
  volume.begin_commit();
  leaver->put(0, read_of(3, 1));
  daemon.step();
  REQUIRE(daemon.worker().counters().volume_waits.value() == 1);
  leaver.reset();
  CHECK(daemon.step_until([&] { return daemon.clients() == 0; }));
  volume.unmark_compaction();
}

TEST_CASE("a drain ends what is in flight and answers what comes too late at once") {
  TestDaemon daemon(stepped());
  RawClient client(daemon);
  client.put(0, nop(1));
  daemon.step();
  daemon.drain();
  REQUIRE(daemon.step_until([&] { return daemon.drained(); }));
  CHECK(client.completion(0).status == KELP_OK);
  CHECK(client.state() == RingState::kDraining);
  // It had not looked at the state yet.
  client.put(1, read_of(3, 2));
  daemon.step();
  CHECK(client.completion(1).tag == 2);
  CHECK(client.completion(1).status == KELP_UNAVAILABLE);
  RawClient late(daemon);
  daemon.step();
  CHECK(late.state() == RingState::kDraining);
}

TEST_CASE("a worker stops with requests in flight and rings attached") {
  TempDir dir;
  TestDaemonOptions options;
  options.drive = Drive::kThread;
  options.worker.loader.directories = {{dir.path().string(), ""}};
  auto daemon = std::make_unique<TestDaemon>(options);
  TestClient client(*daemon);
  for (std::uint64_t tag = 0; tag < 4; ++tag) client.submit(client.nop(tag));
  daemon.reset();
  while (client.last_status == KELP_OK) client.reap();
  CHECK(client.last_status == KELP_DISCONNECTED);
}

TEST_CASE("a CPU that is not there is refused by number") {
  WorkerOptions options;
  options.cpu = CPU_SETSIZE - 1;
  Worker worker(options);
  Waker control;
  const auto started = worker.start(control);
  REQUIRE_FALSE(started);
  CHECK(started.error().what.find("CPU 1023") != std::string::npos);
}

}  // namespace
