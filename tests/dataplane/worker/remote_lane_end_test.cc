// What becomes of lent requests when time is up, clients die, the worker is switched off or ends;
// and with both sides on threads of their own.
#include <doctest/doctest.h>
#include <poll.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "dataplane/worker/remote_scene.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Kind = RemoteRequest::Kind;
using Scene = RemoteScene;

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
  scene.programs.push_back(std::make_unique<RemoteProgram>(scene.workers));
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
