// Requests that are lent to whoever reads from other hosts: which, with what, and their answers.
#include "dataplane/worker/remote_lane.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/worker/remote_scene.h"
#include "shm_ring/hints.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Kind = RemoteRequest::Kind;
using Program = RemoteProgram;
using Scene = RemoteScene;

TEST_CASE(
    "a read of a volume that is not here is lent with all it takes, and answered from there") {
  Scene scene;
  scene.start();
  Submission submission = Program::read_of(kNowhere, 7);
  submission.offset_bytes = 123;
  submission.extra = 1 + 64 * 1024;
  const Ticks before = ticks_now();
  scene.program().submit(submission);
  const RemoteRequest request = scene.lent();
  CHECK(request.kind == Kind::kRead);
  CHECK(request.fid.volume == VolumeId{8});
  CHECK(request.fid.needle == NeedleId{1});
  CHECK(request.fid.cookie == Cookie{0x637037d6});
  CHECK(request.offset_bytes == 123);
  CHECK(request.buffer.data() == scene.program().memory(7 * 4096));
  CHECK(request.buffer.size() == 4096);
  CHECK(request.hints.data() == scene.program().memory(64 * 1024));
  CHECK(request.hints.size() == kHintsBytes);
  CHECK(request.why == KELP_UNAVAILABLE);
  CHECK(request.deadline > before + TickRate::instance().from_us(10'000'000));
  CHECK(request.deadline < ticks_now() + TickRate::instance().from_us(20'000'001));
  CHECK(scene.nothing_comes());
  std::memset(request.buffer.data(), 0x5a, 1000);
  scene.answer(request.op, KELP_OK, 1000, 5000, 3);
  const Completion done = scene.reap();
  CHECK(done.tag == 7);
  CHECK(done.status == KELP_OK);
  CHECK(done.path == KELP_PATH_HTTP);
  CHECK(done.bytes == 1000);
  CHECK(done.total_bytes == 5000);
  CHECK(done.attempts == 3);
  CHECK(scene.counters().remote.value() == 1);
  CHECK(scene.counters().remote_bytes.value() == 1000);
  CHECK(scene.counters().bytes.value() == 1000);
  CHECK(scene.nothing_comes());
}

TEST_CASE("without hints none are lent") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 1);
  CHECK(scene.lent().hints.empty());
}

TEST_CASE("whatever the reader answers is what the client hears, and never goes round again") {
  Scene scene;
  scene.start();
  for (const kelp_status status :
       {KELP_NOT_FOUND, KELP_DENIED, KELP_RANGE, KELP_BROKEN_GZIP, KELP_INVALID, KELP_CORRUPT,
        KELP_USE_HTTP, KELP_UNAVAILABLE, KELP_DEADLINE}) {
    CAPTURE(kelp_status_name(status));
    scene.program().submit(kNowhere, 2);
    scene.answer(scene.lent().op, status, 0, status == KELP_RANGE ? 10 : 0, 2);
    const Completion done = scene.reap();
    CHECK(done.status == status);
    CHECK(done.path == KELP_PATH_NONE);
    CHECK(done.bytes == 0);
    CHECK(done.total_bytes == (status == KELP_RANGE ? 10 : 0));
    CHECK(done.attempts == 2);
  }
  CHECK(scene.lane().requests.empty());
}

TEST_CASE("what is final here is answered here") {
  Scene scene;
  SmallVolume volume(scene.dir.path(), 3);
  const kelp_fid good = volume.put(1, 2, pattern(100, 1));
  const kelp_fid broken =
      volume.put(2, 2, {std::byte{0x1f}, std::byte{0x8b}, std::byte{8}}, kFlagCompressed);
  volume.VolumeWriter::put({.id = 3,
                            .cookie = 2,
                            .data = pattern(9, 1),
                            .last_modified_s = 1,
                            .ttl = Ttl{1, 1},
                            .append_at_ns = 1});
  scene.start();
  const auto ends_with = [&](kelp_status status, kelp_fid fid, std::uint64_t offset = 0) {
    CAPTURE(kelp_status_name(status));
    Submission submission = Program::read_of(fid, 1);
    submission.offset_bytes = offset;
    scene.program().submit(submission);
    const Completion done = scene.reap();
    CHECK(done.status == status);
    CHECK(done.attempts == 1);
  };
  ends_with(KELP_OK, good);
  ends_with(KELP_NOT_FOUND, {3, 2, 99});
  ends_with(KELP_WRONG_COOKIE, {3, 3, 1});
  ends_with(KELP_RANGE, good, 101);
  ends_with(KELP_BROKEN_GZIP, broken);
  ends_with(KELP_EXPIRED, {3, 2, 3});
  CHECK(scene.nothing_lent());
}

TEST_CASE("a damaged record, and one that only its server can read, are read from elsewhere") {
  Scene scene;
  SmallVolume volume(scene.dir.path(), 3);
  const kelp_fid damaged = volume.put(1, 2, pattern(100, 1));
  const kelp_fid manifest = volume.put(2, 2, pattern(100, 2), kFlagChunkManifest);
  const std::byte flipped = ~pattern(100, 1)[50];
  REQUIRE(::pwrite(volume.dat_fd(), &flipped, 1, 8 + 20 + 50) == 1);
  scene.start();
  scene.program().submit(damaged, 1);
  RemoteRequest request = scene.lent();
  CHECK(request.why == KELP_CORRUPT);
  scene.answer(request.op, KELP_OK, 100, 100);
  CHECK(scene.reap().path == KELP_PATH_HTTP);
  scene.program().submit(manifest, 1);
  request = scene.lent();
  CHECK(request.why == KELP_USE_HTTP);
  scene.answer(request.op, KELP_USE_HTTP);
  CHECK(scene.reap().status == KELP_USE_HTTP);
}

TEST_CASE("a volume whose index is being loaded is read from elsewhere at once") {
  Scene scene;
  SmallVolume volume(scene.dir.path(), 3);
  const kelp_fid fid = volume.put(1, 2, pattern(100, 1));
  scene.start();
  scene.program().submit(fid, 1);
  REQUIRE(scene.reap().path == KELP_PATH_LOCAL);
  volume.begin_commit();
  // The first of them finds that its files have been replaced.
  for (std::uint64_t tag = 1; tag < 4; ++tag) {
    scene.program().submit(fid, tag);
    const RemoteRequest request = scene.lent();
    CHECK(request.why == KELP_UNAVAILABLE);
    scene.answer(request.op, KELP_OK, 100, 100);
    CHECK(scene.reap().path == KELP_PATH_HTTP);
  }
  CHECK(scene.counters().volume_waits.value() == 0);
  volume.unmark_compaction();
  CHECK(eventually([&] {
    scene.program().submit(fid, 1);
    scene.turn();
    if (const auto request = scene.lane().requests.try_pop()) {
      scene.answer(request->op, KELP_UNAVAILABLE);
    }
    return scene.reap().path == KELP_PATH_LOCAL;
  }));
}

TEST_CASE("a volume that wants tokens is its server's to read, and its refusal is final") {
  Scene scene;
  SmallVolume volume(scene.dir.path(), 3);
  const kelp_fid fid = volume.put(1, 2, pattern(100, 1));
  const auto pulse = std::make_shared<ServerPulse>();
  pulse->trusted_until = UINT64_MAX;
  pulse->wants_token = true;
  scene.options.loader.directories = {{scene.dir.path().string(), "", 1, 0, pulse}};
  scene.start();
  REQUIRE(scene.until([&] {
    const auto all = scene.workers[0]->loader().catalog().attestations(1);
    if (all.empty() || all[0]->ticket() == 0) return false;
    all[0]->attest(all[0]->ticket());
    return true;
  }));
  RemoteRequest request;
  REQUIRE(eventually([&] {
    scene.program().submit(fid, 1);
    request = scene.lent();
    scene.answer(request.op, KELP_DENIED);
    CHECK(scene.reap().status == KELP_DENIED);
    return request.why == KELP_DENIED;
  }));
  const std::uint64_t before = scene.counters().remote.value();
  REQUIRE(scene.workers[0]->command({WorkerCommand::Kind::kDrain, nullptr}));
  // Taken in the same turn as the drain begins: too late to be lent, and nobody judged its token.
  scene.program().submit(fid, 1);
  CHECK(scene.reap().status != KELP_OK);
  CHECK(scene.counters().remote.value() == before);
}

TEST_CASE("what the owner of a volume cannot serve goes by the lane of the ring's worker") {
  Scene scene(2);
  SmallVolume volume(scene.dir.path(), 5);
  const kelp_fid good = volume.put(1, 2, pattern(100, 1));
  const kelp_fid damaged = volume.put(2, 2, pattern(100, 2));
  const std::byte zero{};
  REQUIRE(::pwrite(volume.dat_fd(), &zero, 1, static_cast<off_t>(volume.dat_end() - 60)) == 1);
  scene.start();
  scene.program().submit(good, 1);
  CHECK(scene.reap().path == KELP_PATH_LOCAL);
  const auto goes_by_the_first = [&](kelp_fid fid, kelp_status why) {
    Submission submission = Program::read_of(fid, 1);
    submission.extra = 1 + 32 * 1024;
    scene.program().submit(submission);
    const RemoteRequest request = scene.lent(0);
    CHECK(request.why == why);
    CHECK(request.buffer.data() == scene.program().memory(4096));
    CHECK(request.hints.data() == scene.program().memory(32 * 1024));
    scene.answer(request.op, KELP_OK, 100, 100, 2);
    const Completion done = scene.reap();
    CHECK(done.path == KELP_PATH_HTTP);
    CHECK(done.attempts == (why == KELP_CORRUPT ? 3 : 2));  // the owner's own
  };
  goes_by_the_first(damaged, KELP_CORRUPT);
  goes_by_the_first({9, 1, 1}, KELP_UNAVAILABLE);
  CHECK(scene.lane(1).requests.empty());
  CHECK(scene.counters(1).remote.value() == 0);
}

TEST_CASE("requests that the owner has no room for are read from elsewhere") {
  Scene scene(2, 8);
  scene.start();
  for (std::uint64_t tag = 0; tag < 16; ++tag) scene.program().submit({9, 1, 1}, tag);
  for (int i = 0; i < 16; ++i) {
    scene.answer(scene.lent().op, KELP_OK, 1, 1);
    CHECK(scene.reap().path == KELP_PATH_HTTP);
  }
}

TEST_CASE("hints that do not lie inside the client's memory make a request INVALID") {
  Scene scene;
  scene.start();
  const auto invalid = [&](std::uint64_t extra) {
    CAPTURE(extra);
    Submission submission = Program::read_of(kNowhere, 1);
    submission.extra = extra;
    scene.program().submit(submission);
    CHECK(scene.reap().status == KELP_INVALID);
  };
  invalid(UINT64_MAX);
  invalid(UINT64_MAX - kHintsBytes);
  invalid(1 + kRemoteDataBytes);
  invalid(1 + kRemoteDataBytes - kHintsBytes + 1);
  CHECK(scene.nothing_lent());
  Submission submission = Program::read_of(kNowhere, 1);
  submission.extra = 1 + kRemoteDataBytes - kHintsBytes;
  scene.program().submit(submission);
  CHECK(scene.lent().hints.data() == scene.program().memory(kRemoteDataBytes - kHintsBytes));
}

TEST_CASE("a stat is lent as one") {
  Scene scene;
  scene.start();
  Submission submission = Program::read_of(kNowhere, 3);
  submission.op = OpCode::kStat;
  scene.program().submit(submission);
  const RemoteRequest request = scene.lent();
  CHECK(request.kind == Kind::kStat);
  scene.answer(request.op, KELP_OK, sizeof(kelp_stat), 100);
  const Completion done = scene.reap();
  CHECK(done.bytes == sizeof(kelp_stat));
  CHECK(done.path == KELP_PATH_HTTP);
  CHECK(scene.counters().stats.value() == 1);
  CHECK(scene.workers[0]->latencies().remote.count() == 1);
  CHECK(scene.workers[0]->latencies().stat.count() == 0);
}

TEST_CASE("a worker without a reader has no lane and answers by itself") {
  Worker worker(WorkerOptions{});
  CHECK(worker.remote_lane() == nullptr);
}

}  // namespace
