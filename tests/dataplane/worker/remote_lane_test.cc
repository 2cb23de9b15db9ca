// Requests that are lent to whoever reads from other hosts. The test is that reader; but for the
// last cases it also steps the workers.
#include "dataplane/worker/remote_lane.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "dataplane/worker/worker.h"
#include "shm_ring/hints.h"
#include "shm_ring/ring.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Kind = RemoteRequest::Kind;

constexpr std::uint32_t kEntries = 16;
constexpr std::uint64_t kDataBytes = 1 << 20;
constexpr kelp_fid kNowhere{8, 0x637037d6, 1};

/// A program with one channel: ring w is worker w's.
struct Program {
  explicit Program(const std::vector<std::unique_ptr<Worker>>& workers)
      : client(workers.size()), submissions(workers.size()), completions(workers.size()) {
    const SegmentLayout layout{static_cast<std::uint32_t>(workers.size()), kEntries, 2 * kEntries};
    client.segment = ClientSegment::create(layout, kDataBytes, HugepageUse::kOff).value();
    for (std::uint32_t i = 0; i < workers.size(); ++i) {
      int pair[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
      ends.emplace_back(pair[1]);
      client.rings.push_back(std::make_unique<ServerRing>(
          client, i, UniqueFd(pair[0]), UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))));
      REQUIRE(workers[i]->command({WorkerCommand::Kind::kAddRing, client.rings[i].get()}));
      std::byte* const block = client.segment->ring_block(i);
      auto* const control = reinterpret_cast<RingControl*>(block);
      const auto words = [&](std::size_t offset) {
        return reinterpret_cast<std::uint64_t*>(block + offset);
      };
      submissions[i] = {words(layout.submissions_offset()), kEntries, &control->submission_head};
      completions[i] = {words(layout.completions_offset()), 2 * kEntries,
                        &control->completion_head};
    }
  }

  void submit(kelp_fid fid, std::uint64_t tag, std::uint32_t timeout_us = 20'000'000) {
    submit(read_of(fid, tag, timeout_us));
  }
  void submit(const Submission& submission, std::uint32_t ring = 0) {
    submissions[ring].push(submission);
  }
  static Submission read_of(kelp_fid fid, std::uint64_t tag,
                            std::uint32_t timeout_us = 20'000'000) {
    Submission submission{};
    submission.op = OpCode::kRead;
    submission.tag = tag;
    submission.volume = fid.volume;
    submission.needle = fid.needle;
    submission.cookie = fid.cookie;
    submission.buffer_offset_bytes = tag * 4096;
    submission.length_bytes = 4096;
    submission.timeout_us = timeout_us;
    return submission;
  }
  std::byte* memory(std::uint64_t offset_bytes) const {
    return client.segment->resolve(offset_bytes, 1)->data();
  }

  Client client;
  std::vector<UniqueFd> ends;
  std::vector<RingProducer<Submission>> submissions;
  std::vector<RingConsumer<Completion>> completions;
};

struct Scene {
  explicit Scene(std::uint32_t count = 1, std::uint32_t ops = 64) {
    options.workers = count;
    options.ops = ops;
    options.remote = true;
    options.reload_wait_us = 10'000'000;
    options.loader.directories = {{dir.path().string(), ""}};
  }
  /// After the volumes have been written.
  void start() {
    for (std::uint32_t i = 0; i < options.workers; ++i) {
      options.index = options.loader.worker = i;
      options.loader.workers = options.workers;
      workers.push_back(std::make_unique<Worker>(options));
      workers.back()->remote_lane()->reader = &reader;
    }
    if (options.workers > 1) Worker::introduce(workers);
    programs.push_back(std::make_unique<Program>(workers));
    REQUIRE(until([&] {
      for (const auto& worker : workers) {
        if (!worker->loader().settled()) return false;
      }
      return true;
    }));
    turn();
  }

  void turn(int turns = 300) {
    for (int i = 0; i < turns; ++i) {
      for (const auto& worker : workers) worker->poll_once();
    }
  }
  template <class Condition>
  bool until(Condition&& condition) {
    return eventually([&] {
      turn();
      return condition();
    });
  }
  Completion reap(std::uint32_t ring = 0) {
    std::optional<Completion> done;
    REQUIRE(until([&] { return (done = program().completions[ring].pop()).has_value(); }));
    program().completions[ring].publish_head();
    return *done;
  }
  bool nothing_comes(std::uint32_t ring = 0) {
    turn(2000);
    return !program().completions[ring].pop();
  }

  RemoteLane& lane(std::uint32_t worker = 0) { return *workers[worker]->remote_lane(); }
  RemoteRequest lent(std::uint32_t worker = 0) {
    std::optional<RemoteRequest> request;
    REQUIRE(until([&] { return (request = lane(worker).requests.try_pop()).has_value(); }));
    return *request;
  }
  bool nothing_lent() {
    for (const auto& worker : workers) {
      if (!worker->remote_lane()->requests.empty()) return false;
      if (worker->counters().remote.value() != 0) return false;
    }
    return true;
  }
  void answer(OpIndex op, kelp_status status, std::uint32_t bytes = 0, std::uint64_t total = 0,
              std::uint8_t attempts = 1, std::uint32_t worker = 0) {
    RemoteAnswer answer;
    answer.op = op;
    answer.outcome.status = status;
    answer.outcome.bytes = bytes;
    answer.outcome.total_bytes = total;
    answer.path = status == KELP_OK ? KELP_PATH_HTTP : KELP_PATH_NONE;
    answer.attempts = attempts;
    REQUIRE(lane(worker).answers.try_push(std::move(answer)));
  }
  Program& program() { return *programs.back(); }
  const WorkerCounters& counters(std::uint32_t worker = 0) { return workers[worker]->counters(); }

  TempDir dir;
  Waker reader;
  WorkerOptions options;
  std::vector<std::unique_ptr<Program>> programs;
  std::vector<std::unique_ptr<Worker>> workers;  // ended before what they write to
};

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
  volume.compact();
  volume.mark_compaction();
  volume.swap_dat();
  volume.swap_idx();
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

TEST_CASE("a deadline that passes first holds the buffer until the late answer") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 5, 1000);
  const RemoteRequest request = scene.lent();
  const Completion done = scene.reap();
  CHECK(done.tag == 5);
  CHECK(done.status == KELP_DEADLINE);
  CHECK(done.flags == KELP_FLAG_BUFFER_HELD);
  CHECK(done.path == KELP_PATH_NONE);
  CHECK(scene.nothing_comes());
  CHECK(scene.lane().requests.empty());
  scene.answer(request.op, KELP_OK, 100, 100);
  const Completion released = scene.reap();
  CHECK(released.tag == 5);
  CHECK(released.flags == kFlagReleased);
  CHECK(scene.nothing_comes());
  CHECK(scene.counters().buffers_held.value() == 1);
  CHECK(scene.counters().buffers_released.value() == 1);
  CHECK(scene.counters().completions[KELP_OK].value() == 0);
}

TEST_CASE("a request of a client that is gone is asked back once, and holds its ring until then") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 5);
  const RemoteRequest request = scene.lent();
  ServerRing* const ring = scene.program().client.rings[0].get();
  REQUIRE(scene.workers[0]->command({WorkerCommand::Kind::kRemoveRing, ring}));
  const RemoteRequest cancel = scene.lent();
  CHECK(cancel.kind == Kind::kCancel);
  CHECK(cancel.op == request.op);
  CHECK(cancel.buffer.empty());
  for (int i = 0; i < 5; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    scene.turn();
  }
  CHECK(scene.lane().requests.empty());
  CHECK_FALSE(scene.workers[0]->take_report());
  scene.answer(request.op, KELP_DEADLINE);
  std::optional<WorkerReport> report;
  REQUIRE(scene.until([&] { return (report = scene.workers[0]->take_report()).has_value(); }));
  CHECK(report->kind == WorkerReport::Kind::kRingRemoved);
  CHECK(report->ring == ring);
  CHECK(ring->in_flight() == 0);
}

TEST_CASE("a client that goes while its buffer is held is let go with the late answer") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 5, 1000);
  const RemoteRequest request = scene.lent();
  REQUIRE(scene.reap().flags == KELP_FLAG_BUFFER_HELD);
  REQUIRE(scene.workers[0]->command(
      {WorkerCommand::Kind::kRemoveRing, scene.program().client.rings[0].get()}));
  CHECK(scene.lent().kind == Kind::kCancel);
  CHECK_FALSE(scene.workers[0]->take_report());
  scene.answer(request.op, KELP_OK, 1, 1);
  CHECK(scene.until([&] { return scene.workers[0]->take_report().has_value(); }));
}

TEST_CASE("while switched off, a worker answers USE_HTTP and hands nothing on") {
  Scene scene(2);
  scene.start();
  for (const auto& worker : scene.workers) worker->set_serving(false);
  scene.program().submit(kNowhere, 1);
  CHECK(scene.reap().status == KELP_USE_HTTP);
  // By the other worker, which is switched off as well.
  scene.program().submit({9, 1, 1}, 2);
  CHECK(scene.reap().status == KELP_USE_HTTP);
  CHECK(scene.nothing_lent());
  for (const auto& worker : scene.workers) worker->set_serving(true);
  scene.program().submit(kNowhere, 1);
  CHECK(scene.lent().kind == Kind::kRead);
}

TEST_CASE("what was lent before the switch is answered as it would have been") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 1);
  const RemoteRequest request = scene.lent();
  scene.workers[0]->set_serving(false);
  scene.answer(request.op, KELP_OK, 10, 10);
  CHECK(scene.reap().status == KELP_OK);
}

TEST_CASE("a drain hands nothing on, and ends when all that is lent has come back") {
  Scene scene;
  scene.start();
  scene.program().submit(kNowhere, 1);
  const RemoteRequest request = scene.lent();
  REQUIRE(scene.workers[0]->command({WorkerCommand::Kind::kDrain, nullptr}));
  scene.turn();
  scene.program().submit(kNowhere, 2);
  const Completion refused = scene.reap();
  CHECK(refused.tag == 2);
  CHECK(refused.status == KELP_UNAVAILABLE);
  CHECK(scene.lane().requests.empty());
  CHECK_FALSE(scene.workers[0]->take_report());
  scene.answer(request.op, KELP_OK, 10, 10);
  CHECK(scene.reap().status == KELP_OK);
  std::optional<WorkerReport> report;
  REQUIRE(scene.until([&] { return (report = scene.workers[0]->take_report()).has_value(); }));
  CHECK(report->kind == WorkerReport::Kind::kDrained);
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
    CHECK(done.attempts == 2);
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
  invalid(1 + kDataBytes);
  invalid(1 + kDataBytes - kHintsBytes + 1);
  CHECK(scene.nothing_lent());
  Submission submission = Program::read_of(kNowhere, 1);
  submission.extra = 1 + kDataBytes - kHintsBytes;
  scene.program().submit(submission);
  CHECK(scene.lent().hints.data() == scene.program().memory(kDataBytes - kHintsBytes));
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

TEST_CASE("no-ops are answered while reads are lent, and are never lent") {
  Scene scene(1, 16);
  scene.start();
  for (std::uint64_t tag = 0; tag < 7; ++tag) scene.program().submit(kNowhere, tag);
  scene.turn();
  for (std::uint64_t tag = 100; tag < 120; ++tag) {
    Submission nop{};
    nop.op = OpCode::kNop;
    nop.tag = tag;
    scene.program().submit(nop);
    const Completion done = scene.reap();
    CHECK(done.tag == tag);
    CHECK(done.path == KELP_PATH_NONE);
  }
  CHECK(scene.counters().remote.value() == 7);
  Submission hinted{};
  hinted.op = OpCode::kNop;
  hinted.extra = 1;
  scene.program().submit(hinted);
  CHECK(scene.reap().status == KELP_INVALID);
}

TEST_CASE("cancellations that cross with answers crowd out neither requests nor each other") {
  Scene scene(1, 16);
  scene.start();
  constexpr std::size_t kLent = 12;  // the last quarter of the ops is not one client's to fill
  const auto lend = [&] {
    for (std::uint64_t tag = 0; tag < kLent; ++tag) scene.program().submit(kNowhere, tag);
    scene.turn();
  };
  const auto remove_ring = [&] {
    REQUIRE(scene.workers[0]->command(
        {WorkerCommand::Kind::kRemoveRing, scene.program().client.rings[0].get()}));
    for (int i = 0; i < 5; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      scene.turn();
    }
  };
  // Of every op all it may owe a reader who looks at none of it.
  lend();
  std::vector<OpIndex> ops;
  for (std::size_t i = 0; i < kLent; ++i) ops.push_back(scene.lent().op);
  remove_ring();
  for (const OpIndex op : ops) scene.answer(op, KELP_UNAVAILABLE);
  scene.turn();
  scene.programs.push_back(std::make_unique<Program>(scene.workers));
  scene.turn();
  lend();
  remove_ring();
  std::vector<RemoteRequest> owed;
  while (const auto request = scene.lane().requests.try_pop()) owed.push_back(*request);
  REQUIRE(owed.size() == 3 * kLent);
  for (std::size_t i = 0; i < owed.size(); ++i) {
    CHECK(owed[i].kind == (i / kLent == 1 ? Kind::kRead : Kind::kCancel));
  }
  for (std::size_t i = 0; i < kLent; ++i) scene.answer(owed[kLent + i].op, KELP_UNAVAILABLE);
  CHECK(scene.until([&] { return scene.program().client.rings[0]->in_flight() == 0; }));
}

TEST_CASE("a worker without a reader has no lane and answers by itself") {
  Worker worker(WorkerOptions{});
  CHECK(worker.remote_lane() == nullptr);
}

/// Answers on a thread of its own as the gateway does, sleeping in between. Ends before the daemon.
class AnsweringReader {
 public:
  AnsweringReader(RemoteLane& lane, Waker& waker)
      : lane_(lane), waker_(waker), thread_([this] { run(); }) {}
  ~AnsweringReader() {
    stop_.store(true);
    waker_.notify();
    thread_.join();
  }

 private:
  void run() {
    while (!stop_.load()) {
      bool answered = false;
      while (const auto request = lane_.requests.try_pop()) {
        if (request->kind == Kind::kCancel) continue;
        std::memset(request->buffer.data(), static_cast<int>(request->offset_bytes), 100);
        RemoteAnswer answer{request->op, {}, KELP_PATH_HTTP, 1};
        answer.outcome.status = KELP_OK;
        answer.outcome.bytes = 100;
        REQUIRE(lane_.answers.try_push(std::move(answer)));
        answered = true;
      }
      if (answered) lane_.worker.notify();
      waker_.arm();
      pollfd source{waker_.fd(), POLLIN, 0};
      if (lane_.requests.empty() && !stop_.load()) ::poll(&source, 1, 1000);
      waker_.disarm();
    }
  }

  RemoteLane& lane_;
  Waker& waker_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

TEST_CASE("a reader and a worker that both sleep lose no request, no answer and no byte") {
  Waker waker;
  TestDaemonOptions options;
  options.drive = TestDaemonOptions::Drive::kThread;
  options.worker.remote = true;
  options.worker.spin_us = 0;
  options.worker.ops = 8;
  options.ring_entries = 16;
  options.remote_reader = &waker;
  TestDaemon daemon(options);
  AnsweringReader reader(*daemon.worker().remote_lane(), waker);
  TestClient client(daemon);
  std::uint64_t submitted = 0;
  std::uint64_t wrong = 0;
  for (std::uint64_t done = 0; done < 5000;) {
    for (; submitted < done + 16; ++submitted) {
      kelp_request request = client.read(kNowhere, submitted, 4096);
      request.offset = submitted % 251;
      request.buffer = static_cast<std::byte*>(client.buffer) + submitted % 16 * 4096;
      if (client.submit(request) != KELP_OK) break;
    }
    for (const kelp_completion& each : client.reap()) {
      ++done;
      const auto* const bytes = static_cast<const std::byte*>(client.buffer) + each.tag % 16 * 4096;
      const std::vector<std::byte> expected(100, static_cast<std::byte>(each.tag % 251));
      if (each.status != KELP_OK || each.path != KELP_PATH_HTTP ||
          std::memcmp(bytes, expected.data(), expected.size()) != 0) {
        ++wrong;
      }
    }
    REQUIRE(client.last_status == KELP_OK);
  }
  CHECK(wrong == 0);
}

TEST_CASE("programs that leave in the middle of lent reads are forgotten, one after the other") {
  Waker waker;
  TestDaemonOptions options;
  options.drive = TestDaemonOptions::Drive::kThread;
  options.worker.remote = true;
  options.worker.ops = 8;
  options.ring_entries = 16;
  options.remote_reader = &waker;
  TestDaemon daemon(options);
  AnsweringReader reader(*daemon.worker().remote_lane(), waker);
  for (int i = 0; i < 50; ++i) {
    TestClient client(daemon);
    for (std::uint64_t tag = 0; tag < 16; ++tag) {
      kelp_request request = client.read(kNowhere, tag, 4096);
      request.buffer = static_cast<std::byte*>(client.buffer) + tag * 4096;
      client.submit(request);
    }
  }
  CHECK(eventually([&] { return daemon.clients() == 0; }));
}

}  // namespace
