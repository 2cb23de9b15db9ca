// A gateway between a worker, which the test plays, and masters and volume servers that answer as
// it says.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "control/gateway/gateway.h"
#include "control/log.h"
#include "support/scripted_http.h"

namespace kelp::test {

using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;
using Peer = ScriptedHttp::Peer;
using Asked = ScriptedHttp::Asked;

inline constexpr std::size_t kRoom = 4096;

inline std::string content(std::size_t bytes = 1000) {
  std::string text;
  while (text.size() < bytes) text += std::to_string(text.size()) + ",";
  return text.substr(0, bytes);
}

/// What a request says besides its op and its volume.
struct Wish {
  std::uint64_t needle = 1;
  std::uint64_t offset = 0;
  milliseconds timeout{20'000};
  bool stat = false;
  std::string token = {};
  std::string server = {};
  std::size_t lane = 0;
};

struct GatewayScene {
  explicit GatewayScene(std::size_t ops = 64, std::size_t lanes_wanted = 1)
      : memory(ops * kRoom), hints(ops * kHintsBytes) {
    set_log_level(LogLevel::kError);
    options.lookup.masters = {master.address()};
    for (std::size_t i = 0; i < lanes_wanted; ++i) {
      lanes.push_back(std::make_unique<RemoteLane>(ops, worker));
    }
  }
  void start() {
    std::vector<RemoteLane*> all;
    for (const auto& lane : lanes) all.push_back(lane.get());
    auto started = Gateway::start(options, all);
    REQUIRE(started);
    gateway = std::move(*started);
  }

  std::span<std::byte> buffer(OpIndex op) { return std::span(memory).subspan(op * kRoom, kRoom); }
  std::span<std::byte, kHintsBytes> hints_of(OpIndex op) {
    return std::span<std::byte, kHintsBytes>(hints.data() + op * kHintsBytes, kHintsBytes);
  }
  RemoteRequest request(OpIndex op, std::uint32_t volume, const Wish& wish = {}) {
    RemoteRequest made;
    made.kind = wish.stat ? RemoteRequest::Kind::kStat : RemoteRequest::Kind::kRead;
    made.op = op;
    made.fid = {VolumeId{volume}, NeedleId{wish.needle}, Cookie{0x637037d6}};
    made.offset_bytes = wish.offset;
    made.buffer = buffer(op);
    made.deadline = ticks_now() + TickRate::instance().from_us(
                                      static_cast<std::uint64_t>(wish.timeout.count()) * 1000);
    if (!wish.token.empty() || !wish.server.empty()) {
      REQUIRE(write_hints(wish.token, wish.server, hints_of(op)));
      made.hints = hints_of(op);
    }
    return made;
  }
  void send(RemoteRequest made, std::size_t lane = 0) {
    REQUIRE(lanes[lane]->requests.try_push(std::move(made)));
    lanes[lane]->reader->notify();
  }
  void ask(OpIndex op, std::uint32_t volume, const Wish& wish = {}) {
    send(request(op, volume, wish), wish.lane);
  }
  void cancel(OpIndex op) {
    RemoteRequest made;
    made.kind = RemoteRequest::Kind::kCancel;
    made.op = op;
    send(std::move(made));
  }
  RemoteAnswer answer(std::size_t lane = 0) {
    const auto end = Clock::now() + seconds(40);
    while (Clock::now() < end) {
      if (const auto got = lanes[lane]->answers.try_pop()) return *got;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    FAIL("no answer");
    return {};
  }
  RemoteAnswer read(std::uint32_t volume, const Wish& wish = {}) {
    ask(0, volume, wish);
    return answer(wish.lane);
  }
  kelp_status status(std::uint32_t volume, const Wish& wish = {}) {
    return read(volume, wish).outcome.status;
  }
  /// Has a volume looked up: its first read has all of its time for its server.
  bool know(std::uint32_t volume);
  bool holds(OpIndex op, std::string_view text) {
    return std::memcmp(buffer(op).data(), text.data(), text.size()) == 0;
  }
  RemoteServerReport report_of(const std::string& server) {
    for (const RemoteServerReport& each : gateway->report().servers) {
      if (each.server == server) return each;
    }
    return {};
  }
  GatewayCounters counters() { return gateway->report().counters; }

  ScriptedMaster master;
  GatewayOptions options;
  Waker worker;
  std::vector<std::byte> memory;
  std::vector<std::byte> hints;
  std::vector<std::unique_ptr<RemoteLane>> lanes;
  std::unique_ptr<Gateway> gateway;
};

/// A volume server with one needle for everybody.
inline ScriptedHttp::Script serving(std::string data) {
  return [data](Peer& peer, const Asked& asked) { answer_needle(peer, asked, data); };
}
inline ScriptedHttp::Script replying(int status, std::vector<std::string> headers = {}) {
  return [=](Peer& peer, const Asked&) { peer.send(http_reply(status, headers)); };
}
inline void stall(Peer& peer, const Asked&) {
  peer.stall();
}

template <class Condition>
bool soon(Condition&& condition) {
  const auto end = Clock::now() + seconds(30);
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

inline bool GatewayScene::know(std::uint32_t volume) {
  gateway->look_up(VolumeId{volume});
  return soon([&] {
    return std::ranges::any_of(gateway->report().volumes,
                               [&](const auto& each) { return each.id == volume && each.known; });
  });
}

}  // namespace kelp::test
