// A worker that asks the kelpd of another host: in slices, several at once, and a second way where
// that one does not answer. The other host is a few lines of this test behind a real socket.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "dataplane/worker/remote_scene.h"
#include "support/link_lab.h"

namespace {

using namespace kelp;
using namespace kelp::test;

constexpr std::uint32_t kSlice = 64 * 1024;
constexpr std::uint64_t kSource = 99;

struct PeerScene : RemoteScene {
  explicit PeerScene(std::uint64_t hedge_after_us = 0, std::uint16_t slots = 8) {
    options.hedge_after_us = hedge_after_us;
    start();
    TcpPair pair;
    auto link = std::make_unique<NewLink>();
    const wire::Agreement agreement = LinkLab::agreed(slots, kSlice);
    link->role = NewLink::Role::kGateway;
    link->socket = std::move(pair.a);
    link->agreement = agreement;
    link->agreement.target_workers = 1;
    link->peer = 0;
    link->counters = traffic;
    REQUIRE(workers[0]->add_link(std::move(link)));
    target = &there->add_target(std::move(pair.b), agreement, {}, script);
    target->start();
    script.behave = [this](TargetLink&, const wire::Request& request) { asked.push_back(request); };
    script.answers_cancels = false;
    beside = [this] {
      target->flush();
      there->poll();
    };
    teach();
  }
  ~PeerScene() {
    beside = nullptr;
    target->fence();
  }

  /// The first read of a volume is answered by its server, beside which the kelpd is.
  void teach() {
    program().submit(kNowhere, 1);
    RemoteAnswer answer;
    answer.op = lent().op;
    answer.outcome.status = KELP_OK;
    answer.path = KELP_PATH_HTTP;
    answer.peer = 0;
    REQUIRE(lane().answers.try_push(std::move(answer)));
    reap();
  }
  void submit(std::uint32_t length, std::uint32_t timeout_us = 20'000'000) {
    Submission submission = RemoteProgram::read_of(kNowhere, 0, timeout_us);
    submission.length_bytes = length;
    program().submit(submission, 0);
  }
  std::span<std::byte> buffer(std::size_t length) { return {program().memory(0), length}; }

  bool asks(std::size_t count) {
    return until([&] { return asked.size() == count; });
  }
  /// Answers one of those that were asked, as a needle of `total` bytes.
  void give(std::size_t which, std::uint64_t total, std::uint64_t source = kSource) {
    const wire::Request request = asked.at(which);
    asked.erase(asked.begin() + static_cast<std::ptrdiff_t>(which));
    wire::Answer answer;
    answer.slot = request.slot;
    answer.total_bytes = total;
    answer.source = source;
    answer.bytes = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(request.length_bytes, total - request.offset_bytes));
    fill(target->room(request.slot).first(answer.bytes), request.needle, request.offset_bytes);
    target->answer(answer, {});
  }
  void refuse(std::size_t which, kelp_status status) {
    wire::Answer answer;
    answer.slot = asked.at(which).slot;
    answer.status = static_cast<std::uint8_t>(status);
    asked.erase(asked.begin() + static_cast<std::ptrdiff_t>(which));
    target->answer(answer, {});
  }
  bool is_right(std::size_t length) { return holds(buffer(length), kNowhere.needle, 0); }

  std::shared_ptr<LinkCounters> traffic = std::make_shared<LinkCounters>();
  std::unique_ptr<TcpTransport> there{TcpTransport::create().value()};
  ScriptedTarget script;
  TcpTargetLink* target = nullptr;
  std::vector<wire::Request> asked;
};

/// Of a lent read: what a server would have put into its buffer.
void put(const RemoteRequest& request, std::size_t length) {
  fill(request.buffer.first(length), static_cast<std::uint64_t>(request.fid.needle),
       request.offset_bytes);
}

}  // namespace

TEST_CASE("a long read is asked in slices: the first alone, then four at once, in any order") {
  PeerScene scene;
  const std::uint64_t total = 9 * kSlice + 5;
  scene.submit(10 * kSlice);
  REQUIRE(scene.asks(1));
  CHECK(scene.asked[0].offset_bytes == 0);
  CHECK(scene.asked[0].length_bytes == kSlice);
  scene.turn(1000);
  CHECK(scene.asked.size() == 1);
  scene.give(0, total);
  REQUIRE(scene.asks(4));
  scene.turn(1000);
  CHECK(scene.asked.size() == 4);
  while (!scene.asked.empty()) {
    scene.give(scene.asked.size() - 1, total);
    scene.turn();
  }
  const Completion done = scene.reap();
  CHECK(done.status == KELP_OK);
  CHECK(done.path == KELP_PATH_TCP);
  CHECK(done.bytes == total);
  CHECK(done.total_bytes == total);
  CHECK(scene.is_right(total));
  CHECK(scene.traffic->answers.value() == 10);
  CHECK(scene.traffic->bytes.value() == total);
  CHECK(scene.traffic->latency.count() == 10);
  CHECK(scene.counters().remote.value() == 1);
}

TEST_CASE("with fewer credits than slices a long read comes all the same") {
  PeerScene scene(0, 2);
  const std::uint64_t total = 6 * kSlice;
  scene.submit(6 * kSlice);
  for (int answers = 0; answers < 6; ++answers) {
    REQUIRE(scene.until([&] { return !scene.asked.empty(); }));
    CHECK(scene.asked.size() <= 2);
    scene.give(0, total);
  }
  CHECK(scene.reap().status == KELP_OK);
  CHECK(scene.is_right(total));
}

TEST_CASE(
    "slices that contradict each other are believed none, and what comes late does not land") {
  const std::uint64_t total = 5 * kSlice;
  const auto spoil = [&](PeerScene& scene, int how) {
    if (how == 0) scene.give(1, total, kSource + 1);
    if (how == 1) scene.give(1, total + 1);
    if (how == 2) scene.give(1, 2 * kSlice + 9);
    if (how == 3) scene.refuse(1, KELP_NOT_FOUND);
    if (how == 4) scene.refuse(1, KELP_UNAVAILABLE);
  };
  for (int how = 0; how < 5; ++how) {
    CAPTURE(how);
    PeerScene scene;
    scene.submit(5 * kSlice);
    REQUIRE(scene.asks(1));
    scene.give(0, total);
    REQUIRE(scene.asks(4));
    spoil(scene, how);
    const RemoteRequest request = scene.lent();
    CHECK(scene.until([&] { return scene.script.cancels == 3; }));
    std::memset(request.buffer.data(), 0x5a, request.buffer.size());
    while (!scene.asked.empty()) scene.give(0, total);
    CHECK(scene.until([&] { return scene.counters().peer_late.value() == 3; }));
    CHECK(std::ranges::all_of(request.buffer, [](std::byte b) { return b == std::byte{0x5a}; }));
    scene.answer(request.op, KELP_OK, 10, 10);
    const Completion done = scene.reap();
    CHECK(done.status == KELP_OK);
    CHECK(done.path == KELP_PATH_HTTP);
    CHECK(done.attempts == 2);
    if (how == 4) continue;  // it does not serve that volume
    // Not for its silence: it is asked again.
    scene.submit(4096);
    REQUIRE(scene.asks(1));
    scene.give(0, 4096);
    CHECK(scene.reap().path == KELP_PATH_TCP);
  }
}

TEST_CASE("a link that breaks with slices under way sends the read on, once") {
  PeerScene scene;
  scene.submit(5 * kSlice);
  REQUIRE(scene.asks(1));
  scene.give(0, 5 * kSlice);
  REQUIRE(scene.asks(4));
  scene.target->fence();
  const RemoteRequest request = scene.lent();
  scene.answer(request.op, KELP_OK, 10, 10);
  CHECK(scene.reap().status == KELP_OK);
  CHECK(scene.nothing_comes());
  CHECK(scene.lane().requests.empty());
}

TEST_CASE("a peer that does not answer: a second way is tried, and its answer is taken") {
  PeerScene scene(2000);
  scene.submit(4096);
  REQUIRE(scene.asks(1));
  const RemoteRequest request = scene.lent();
  CHECK(request.kind == RemoteRequest::Kind::kRead);
  CHECK(request.buffer.size() == 4096);
  CHECK(request.buffer.data() != scene.program().memory(0));
  put(request, 3000);
  scene.answer(request.op, KELP_OK, 3000, 3000);
  const Completion done = scene.reap();
  CHECK(done.status == KELP_OK);
  CHECK(done.path == KELP_PATH_HTTP);
  CHECK(done.bytes == 3000);
  CHECK(done.attempts == 2);
  CHECK(scene.is_right(3000));
  CHECK(scene.counters().hedges.value() == 1);
  CHECK(scene.counters().hedges_won.value() == 1);
  // The first answer comes late.
  std::memset(scene.program().memory(0), 0x5a, 4096);
  scene.give(0, 4096);
  CHECK(scene.until([&] { return scene.counters().peer_late.value() == 1; }));
  CHECK(std::ranges::all_of(scene.buffer(4096), [](std::byte b) { return b == std::byte{0x5a}; }));
}

TEST_CASE("a peer that answers first: the second way is called off, and its memory comes back") {
  PeerScene scene(1000);
  for (int round = 0; round < 2 * HedgeRooms::kRooms; ++round) {
    CAPTURE(round);
    scene.submit(4096);
    REQUIRE(scene.asks(1));
    const bool hedged = scene.until(
        [&] { return !scene.lane().requests.empty() || scene.counters().hedges.value() >= 16; });
    REQUIRE(hedged);
    const std::optional<RemoteRequest> request = scene.lane().requests.try_pop();
    scene.give(0, 4096);
    const Completion done = scene.reap();
    CHECK(done.status == KELP_OK);
    CHECK(done.path == KELP_PATH_TCP);
    CHECK(scene.is_right(4096));
    if (!request) continue;  // the share of reads that are hedged is used up
    const RemoteRequest cancel = scene.lent();
    CHECK(cancel.kind == RemoteRequest::Kind::kCancel);
    CHECK(cancel.op == request->op);
    scene.answer(request->op, round % 2 == 0 ? KELP_DEADLINE : KELP_OK, 0, 0);
    scene.turn();
    CHECK(scene.is_right(4096));
  }
  CHECK(scene.counters().hedges.value() >= 16);
  CHECK(scene.counters().hedges.value() < 20);
  CHECK(scene.counters().hedges_won.value() == 0);
  CHECK(scene.nothing_comes());
}

TEST_CASE("a peer that fails after a second way was tried: that one decides") {
  for (const kelp_status status : {KELP_OK, KELP_NOT_FOUND, KELP_UNAVAILABLE}) {
    CAPTURE(status);
    PeerScene scene(1000);
    scene.submit(4096);
    REQUIRE(scene.asks(1));
    const RemoteRequest request = scene.lent();
    scene.refuse(0, KELP_UNAVAILABLE);
    CHECK(scene.nothing_comes());
    CHECK(scene.lane().requests.empty());
    if (status == KELP_OK) put(request, 4096);
    scene.answer(request.op, status, status == KELP_OK ? 4096 : 0, 4096);
    const Completion done = scene.reap();
    CHECK(done.status == status);
    if (status == KELP_OK) CHECK(scene.is_right(4096));
    CHECK(scene.nothing_comes());
  }
}

TEST_CASE("a second way that fails leaves the peer its time") {
  PeerScene scene(1000);
  scene.submit(4096);
  REQUIRE(scene.asks(1));
  const RemoteRequest request = scene.lent();
  scene.answer(request.op, KELP_UNAVAILABLE);
  CHECK(scene.nothing_comes());
  scene.give(0, 4096);
  const Completion done = scene.reap();
  CHECK(done.status == KELP_OK);
  CHECK(done.path == KELP_PATH_TCP);
  CHECK(scene.lane().requests.empty());  // and is not tried again
}

TEST_CASE("neither way answers: the read ends at its deadline, and nothing is left of it") {
  PeerScene scene(1000);
  scene.submit(4096, 2'000'000);
  REQUIRE(scene.asks(1));
  const RemoteRequest request = scene.lent();
  CHECK(scene.reap().status == KELP_DEADLINE);
  CHECK(scene.until([&] { return scene.script.cancels == 1; }));
  std::optional<RemoteRequest> cancel;
  REQUIRE(scene.until([&] { return (cancel = scene.lane().requests.try_pop()).has_value(); }));
  CHECK(cancel->kind == RemoteRequest::Kind::kCancel);
  put(request, 4096);
  scene.answer(request.op, KELP_OK, 4096, 4096);
  CHECK(scene.nothing_comes());
}

TEST_CASE("what is too long, or has hints, is not tried a second way") {
  PeerScene scene(1000);
  scene.submit(HedgeRooms::kRoomBytes + 1);
  REQUIRE(scene.asks(1));
  Submission hinted = RemoteProgram::read_of(kNowhere, 200);
  hinted.extra = 1 + 600 * 1024;
  hinted.buffer_offset_bytes = 700 * 1024;
  scene.program().submit(hinted);
  REQUIRE(scene.asks(2));
  const auto end = ticks_now() + TickRate::instance().from_us(20'000);
  while (ticks_now() < end) scene.turn(10);
  CHECK(scene.lane().requests.empty());
  CHECK(scene.counters().hedges.value() == 0);
}
