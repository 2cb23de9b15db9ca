#include "control/gateway/gateway.h"

#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "control/gateway/gateway_scene.h"

using namespace kelp;
using namespace kelp::test;
using Scene = GatewayScene;

namespace {

TEST_CASE("a volume is looked up, and its needles are read from its server") {
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  for (OpIndex op = 0; op < 3; ++op) {
    scene.ask(op, 3);
    const RemoteAnswer done = scene.answer();
    CHECK(done.op == op);
    CHECK(done.outcome.status == KELP_OK);
    CHECK(done.outcome.bytes == 1000);
    CHECK(done.outcome.total_bytes == 1000);
    CHECK(done.path == KELP_PATH_HTTP);
    CHECK(done.attempts == 1);
    CHECK(scene.holds(op, content()));
  }
  CHECK(scene.master.asked() == 1);
  CHECK(server.asked()[0].target == "/3,01637037d6");
  CHECK(server.asked()[0].header("Authorization").empty());
  const GatewayReport report = scene.gateway->report();
  CHECK(report.counters.requests == 3);
  CHECK(report.counters.answered == 3);
  CHECK(report.counters.failed == 0);
  CHECK(report.counters.in_flight == 0);
  CHECK(report.counters.retries == 0);
  CHECK(report.counters.lookups == 1);
  REQUIRE(report.servers.size() == 1);
  CHECK(report.servers[0].server == server.address());
  CHECK(report.servers[0].reads == 3);
  CHECK(report.servers[0].bytes == 3000);
  CHECK(report.servers[0].breaker == std::string("closed"));
  REQUIRE(report.volumes.size() == 1);
  CHECK(report.volumes[0].known);
}

TEST_CASE("parts, ends and what lies behind the end") {
  ScriptedHttp server(serving(content(10'000)));
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  RemoteAnswer done = scene.read(3, {.offset = 9000});
  CHECK(done.outcome.bytes == 1000);
  CHECK(scene.holds(0, content(10'000).substr(9000)));
  done = scene.read(3, {.offset = 10'000});
  CHECK(done.outcome.status == KELP_OK);
  CHECK(done.outcome.bytes == 0);
  for (const std::uint64_t offset : {std::uint64_t{10'001}, std::uint64_t{UINT64_MAX}}) {
    done = scene.read(3, {.offset = offset});
    CHECK(done.outcome.status == KELP_RANGE);
    CHECK(done.outcome.total_bytes == 10'000);
    CHECK(done.path == KELP_PATH_NONE);
  }
  done = scene.read(3, {.stat = true});
  CHECK(done.outcome.status == KELP_OK);
  kelp_stat stat;
  std::memcpy(&stat, scene.buffer(0).data(), sizeof stat);
  CHECK(stat.total == 10'000);
}

TEST_CASE("a replica that is down is passed over for one that is not") {
  const BoundPort down;
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.master.place(3, {down.address(), server.address()});
  scene.start();
  for (int i = 0; i < 20; ++i) CHECK(scene.status(3) == KELP_OK);
  const RemoteServerReport report = scene.report_of(down.address());
  CHECK(report.failures >= 1);
  CHECK(report.breaker != std::string("closed"));
  CHECK_FALSE(report.reason.empty());
  CHECK(report.failing_since);
  CHECK(scene.counters().retries <= report.failures);
}

TEST_CASE("a replica that cannot read a needle leaves it to the other, and CORRUPT to the last") {
  ScriptedHttp damaged(replying(500));
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.master.place(3, {damaged.address(), server.address()});
  scene.master.place(4, {damaged.address()});
  scene.start();
  for (int i = 0; i < 6; ++i) CHECK(scene.status(3) == KELP_OK);
  CHECK(scene.status(4) == KELP_CORRUPT);
}

TEST_CASE("one damaged needle, read again and again, closes its server to nobody") {
  ScriptedHttp server(replying(500));
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  // Each asks again and again, until it has waited for long enough.
  for (OpIndex op = 0; op < 20; ++op) scene.ask(op, 3);
  for (OpIndex op = 0; op < 20; ++op) CHECK(scene.answer().outcome.status == KELP_CORRUPT);
  CHECK(scene.report_of(server.address()).failures >= 20);
  CHECK(scene.report_of(server.address()).breaker == "closed");
}

TEST_CASE("where no replica answers a read is UNAVAILABLE long before its deadline") {
  const BoundPort down;
  const BoundPort down_too;
  Scene scene;
  scene.master.place(3, {down.address(), down_too.address()});
  scene.start();
  const auto began = Clock::now();
  CHECK(scene.status(3) == KELP_UNAVAILABLE);
  CHECK(Clock::now() - began < seconds(10));
}

TEST_CASE("a read waits out a server that starts again") {
  std::atomic<bool> up{false};
  ScriptedHttp server([&](Peer& peer, const Asked& asked) {
    if (!up.load()) return peer.hang_up();
    answer_needle(peer, asked, content());
  });
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  // Until its breaker has opened.
  REQUIRE(soon([&] {
    CHECK(scene.status(3) == KELP_UNAVAILABLE);
    return scene.report_of(server.address()).breaker != "closed";
  }));
  up.store(true);
  CHECK(soon([&] { return scene.status(3) == KELP_OK; }));
  CHECK(scene.report_of(server.address()).breaker == "closed");
}

TEST_CASE("a volume that moved is found by its old server's 404") {
  std::atomic<bool> gone{false};
  ScriptedHttp before([&](Peer& peer, const Asked& asked) {
    if (gone.load()) {
      peer.send(http_reply(404));
    } else {
      answer_needle(peer, asked, content());
    }
  });
  ScriptedHttp after(serving(content()));
  Scene scene;
  scene.master.place(3, {before.address()});
  scene.start();
  REQUIRE(scene.status(3) == KELP_OK);
  gone.store(true);
  scene.master.place(3, {after.address()});
  const RemoteAnswer done = scene.read(3);
  CHECK(done.outcome.status == KELP_OK);
  CHECK(done.attempts == 2);
  CHECK(scene.master.asked() == 2);
}

TEST_CASE("a volume that moved is found though its old server answers nobody") {
  std::atomic<bool> gone{false};
  ScriptedHttp before([&](Peer& peer, const Asked& asked) {
    if (gone.load()) return peer.hang_up();
    answer_needle(peer, asked, content());
  });
  ScriptedHttp after(serving(content()));
  Scene scene;
  scene.options.lookup.ttl = seconds(3600);
  scene.master.place(3, {before.address()});
  scene.start();
  REQUIRE(scene.status(3) == KELP_OK);
  gone.store(true);
  scene.master.place(3, {after.address()});
  CHECK(soon([&] { return scene.status(3) == KELP_OK; }));
}

TEST_CASE("NOT_FOUND is a 404 of a server that a master listed since the read began") {
  ScriptedHttp server([](Peer& peer, const Asked& asked) {
    if (asked.target == "/3,01637037d6") return answer_needle(peer, asked, content());
    peer.send(http_reply(404));
  });
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  CHECK(scene.status(3, {.needle = 2}) == KELP_NOT_FOUND);
  CHECK(scene.master.asked() == 1);
  REQUIRE(scene.status(3) == KELP_OK);
  CHECK(scene.status(3, {.needle = 2}) == KELP_NOT_FOUND);
  CHECK(scene.master.asked() == 2);
  CHECK(scene.report_of(server.address()).breaker == "closed");
  // Without a master nobody can be sure.
  scene.master.set_down(true);
  CHECK(scene.status(3, {.needle = 2}) == KELP_UNAVAILABLE);
  CHECK(scene.status(3) == KELP_OK);
}

TEST_CASE("a volume that no master knows is UNAVAILABLE, and so is any without a master") {
  Scene scene;
  scene.start();
  CHECK(scene.status(3) == KELP_UNAVAILABLE);
  scene.master.set_down(true);
  CHECK(scene.status(4) == KELP_UNAVAILABLE);
}

TEST_CASE("while no master answers, volumes that are known are read on") {
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.options.lookup.ttl = milliseconds(20);
  scene.master.place(3, {server.address()});
  scene.start();
  REQUIRE(scene.status(3) == KELP_OK);
  scene.master.set_down(true);
  const auto end = Clock::now() + milliseconds(300);
  while (Clock::now() < end) REQUIRE(scene.status(3) == KELP_OK);
  CHECK(soon([&] {
    REQUIRE(scene.status(3) == KELP_OK);
    return scene.gateway->report().masters.at(0).failures > 0;
  }));
}

TEST_CASE("a server that does not answer costs a read its time and no more, and is found out") {
  ScriptedHttp server(stall);
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  REQUIRE(scene.know(3));
  for (int i = 1; i <= 3; ++i) {
    const RemoteRequest request = scene.request(0, 3, {.timeout = milliseconds(1000)});
    scene.send(request);
    CHECK(scene.answer().outcome.status == KELP_DEADLINE);
    // Before it, but on a machine that lets the thread wait for its turn.
    WARN(ticks_now() < request.deadline);
    CHECK(scene.report_of(server.address()).failures == static_cast<std::uint64_t>(i));
  }
  CHECK(scene.report_of(server.address()).breaker != "closed");
  // From now on nobody waits for it, until its breaker lets one more through. Should this thread
  // have to wait for its turn until then, a read of its own opens the breaker once more.
  bool spared = false;
  for (int i = 0; i < 20 && !spared; ++i) {
    if (i != 0) scene.status(3, {.timeout = milliseconds(400)});
    spared = scene.status(3, {.timeout = milliseconds(40)}) == KELP_UNAVAILABLE;
  }
  CHECK(spared);
}

TEST_CASE("what is not answered within the millisecond somebody allows is not the server's fault") {
  ScriptedHttp server(stall);
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  REQUIRE(scene.know(3));
  for (int i = 0; i < 20; ++i) {
    CHECK(scene.status(3, {.timeout = milliseconds(5)}) == KELP_DEADLINE);
  }
  CHECK(scene.status(3, {.timeout = milliseconds(0)}) == KELP_DEADLINE);
  const RemoteServerReport report = scene.report_of(server.address());
  CHECK((report.breaker.empty() || report.breaker == "closed"));
}

TEST_CASE("a slow replica leaves half of the time to another one") {
  ScriptedHttp slow(stall);
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.master.place(3, {slow.address(), server.address()});
  scene.start();
  for (int i = 0; i < 4; ++i) {
    CHECK(scene.status(3, {.timeout = milliseconds(2000)}) == KELP_OK);
  }
}

TEST_CASE("a cancelled read is answered at once, and nothing is written after any answer") {
  std::atomic<bool> go_on{false};
  std::atomic<int> begun{0};
  ScriptedHttp server([&](Peer& peer, const Asked&) {
    peer.send("HTTP/1.1 206 X\r\nContent-Range: bytes 0-999/1000\r\nContent-Length: 1000\r\n\r\n");
    peer.send(content().substr(0, 500));
    begun.fetch_add(1);
    soon([&] { return go_on.load(); });
    peer.send(content().substr(500));
  });
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  scene.ask(0, 3);
  scene.ask(2, 3);
  REQUIRE(soon([&] { return begun.load() == 2 && scene.holds(2, content().substr(0, 500)); }));
  // Its time has to last until its answer has begun.
  scene.ask(1, 3, {.timeout = milliseconds(2000)});
  REQUIRE(soon([&] { return begun.load() == 3; }));
  scene.cancel(0);
  scene.cancel(0);
  scene.cancel(17);  // one that nobody waits for
  RemoteAnswer done = scene.answer();
  CHECK(done.op == 0);
  CHECK(done.outcome.status == KELP_DEADLINE);
  done = scene.answer();
  CHECK(done.op == 1);
  CHECK(done.outcome.status == KELP_DEADLINE);
  for (const OpIndex op : {0U, 1U}) std::ranges::fill(scene.buffer(op), std::byte{0xee});
  go_on.store(true);
  done = scene.answer();
  CHECK(done.op == 2);
  CHECK(done.outcome.status == KELP_OK);
  std::this_thread::sleep_for(milliseconds(50));
  for (const OpIndex op : {0U, 1U}) {
    CHECK(std::ranges::all_of(scene.buffer(op), [](std::byte b) { return b == std::byte{0xee}; }));
  }
  CHECK(scene.counters().cancelled == 1);
  CHECK(scene.counters().in_flight == 0);
}

TEST_CASE("a redirect is not followed, and counted") {
  ScriptedHttp elsewhere(serving(content()));
  ScriptedHttp server(replying(301, {"Location: http://" + elsewhere.address() + "/3,01637037d6"}));
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  CHECK(scene.status(3) == KELP_UNAVAILABLE);
  CHECK(elsewhere.asked().empty());
  CHECK(scene.counters().redirects_refused >= 1);
}

TEST_CASE("retries are a share of the reads: a failing cluster is not asked many times more") {
  ScriptedHttp one(replying(400));
  ScriptedHttp two(replying(400));
  Scene scene(256);
  scene.master.place(3, {one.address(), two.address()});
  scene.start();
  constexpr std::uint64_t kReads = 200;
  for (OpIndex op = 0; op < kReads; ++op) scene.ask(op, 3);
  for (OpIndex op = 0; op < kReads; ++op) {
    CHECK(scene.answer().outcome.status == KELP_UNAVAILABLE);
  }
  const GatewayCounters counters = scene.counters();
  CHECK(counters.retries <= 500 + kReads / 5);
  CHECK(counters.retries_refused > 0);
  CHECK(one.asked().size() + two.asked().size() == kReads + counters.retries);
}

TEST_CASE("two thousand reads are answered while two hundred of other servers stand still") {
  ScriptedHttp stalled(stall);
  ScriptedHttp server(serving(content()));
  Scene scene(2048);
  scene.options.connections_per_server = 256;
  scene.master.place(3, {server.address()});
  scene.master.place(4, {stalled.address()});
  scene.start();
  std::atomic<bool> done{false};
  std::uint64_t reports = 0;
  std::thread watcher([&] {
    while (!done.load()) {
      const GatewayReport report = scene.gateway->report();
      if (report.counters.in_flight > report.counters.requests) reports = 0;
      ++reports;
    }
  });
  for (OpIndex op = 0; op < 200; ++op) scene.ask(op, 4, {.timeout = milliseconds(60'000)});
  for (OpIndex op = 200; op < 2000; ++op) scene.ask(op, 3);
  std::set<OpIndex> answered;
  for (int i = 0; i < 1800; ++i) {
    const RemoteAnswer each = scene.answer();
    CHECK(each.op >= 200);
    CHECK(each.outcome.status == KELP_OK);
    CHECK(scene.holds(each.op, content()));
    answered.insert(each.op);
  }
  CHECK(answered.size() == 1800);
  for (OpIndex op = 0; op < 200; ++op) scene.cancel(op);
  for (OpIndex op = 0; op < 200; ++op) CHECK(scene.answer().op < 200);
  done.store(true);
  watcher.join();
  CHECK(reports > 0);
  CHECK(scene.counters().in_flight == 0);
}

TEST_CASE("needles that stand still do not hold up others of the same server") {
  ScriptedHttp server([](Peer& peer, const Asked& asked) {
    if (asked.target != "/3,01637037d6") return peer.stall();
    answer_needle(peer, asked, content());
  });
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  for (OpIndex op = 1; op < 40; ++op) scene.ask(op, 3, {.needle = 2});
  for (int i = 0; i < 50; ++i) CHECK(scene.status(3) == KELP_OK);
}

TEST_CASE("each worker hears of its own reads") {
  ScriptedHttp server(serving(content()));
  Scene scene(64, 3);
  scene.master.place(3, {server.address()});
  scene.start();
  for (std::size_t lane = 0; lane < 3; ++lane) {
    for (OpIndex op = 0; op < 10; ++op) {
      scene.ask(op, 3, {.offset = lane, .lane = lane});
    }
  }
  for (const std::size_t lane : {2U, 0U, 1U}) {
    std::set<OpIndex> ops;
    for (int i = 0; i < 10; ++i) {
      const RemoteAnswer each = scene.answer(lane);
      CHECK(each.outcome.bytes == 1000 - lane);
      ops.insert(each.op);
    }
    CHECK(ops.size() == 10);
  }
}

TEST_CASE("the servers of this host are asked before others") {
  ScriptedHttp far(serving(content()));
  ScriptedHttp near(serving(content()));
  Scene scene;
  scene.options.local = {parse_server_address(near.address()).value()};
  scene.master.place(3, {far.address(), near.address()});
  scene.start();
  for (int i = 0; i < 10; ++i) CHECK(scene.status(3) == KELP_OK);
  CHECK(far.asked().empty());
}

TEST_CASE("equal replicas share the reads") {
  ScriptedHttp one(serving(content()));
  ScriptedHttp two(serving(content()));
  Scene scene;
  scene.master.place(3, {one.address(), two.address()});
  scene.start();
  for (int i = 0; i < 20; ++i) CHECK(scene.status(3) == KELP_OK);
  CHECK(one.asked().size() == 10);
  CHECK(two.asked().size() == 10);
}

TEST_CASE("a gateway ends with reads under way, and writes into no buffer any more") {
  std::atomic<bool> go_on{false};
  std::atomic<int> begun{0};
  ScriptedHttp server([&](Peer& peer, const Asked&) {
    peer.send("HTTP/1.1 206 X\r\nContent-Range: bytes 0-999/1000\r\nContent-Length: 1000\r\n\r\n");
    peer.send(content().substr(0, 500));
    begun.fetch_add(1);
    soon([&] { return go_on.load(); });
    peer.send(content().substr(500));
  });
  ScriptedHttp stalled(stall);
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.master.place(4, {stalled.address()});
  scene.start();
  for (OpIndex op = 0; op < 10; ++op) scene.ask(op, op < 5 ? 3 : 4);
  REQUIRE(soon([&] { return begun.load() == 5; }));
  scene.gateway.reset();
  std::ranges::fill(scene.memory, std::byte{0xee});
  go_on.store(true);
  std::this_thread::sleep_for(milliseconds(30));
  CHECK(std::ranges::all_of(scene.memory, [](std::byte b) { return b == std::byte{0xee}; }));
}

TEST_CASE("a volume may be looked up without reading it") {
  Scene scene;
  scene.master.place(3, {"10.0.0.1:8080"});
  scene.start();
  for (int i = 0; i < 50; ++i) {
    scene.gateway->look_up(VolumeId{static_cast<std::uint32_t>(100 + i)});
  }
  scene.gateway->look_up(VolumeId{3});
  const auto began = Clock::now();
  REQUIRE(soon([&] {
    const auto volumes = scene.gateway->report().volumes;
    return !volumes.empty() && volumes[0].known;
  }));
  WARN(Clock::now() - began < milliseconds(500));
  CHECK(scene.counters().requests == 0);
  REQUIRE(soon([&] { return scene.gateway->report().volumes.size() == 51; }));
}

}  // namespace
