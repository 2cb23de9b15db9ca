// Both ends of TCP links on one thread, with users that remember what they are told.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/transport/tcp/tcp_transport.h"
#include "shm_ring/kelp.h"
#include "support/tcp_pair.h"

namespace kelp::test {

/// Byte `at` of a needle: tells both apart.
inline std::byte byte_of(std::uint64_t needle, std::uint64_t at) {
  return static_cast<std::byte>((needle * 0x9e3779b97f4a7c15ULL + at * 131 + (at >> 8)) >> 3);
}
inline void fill(std::span<std::byte> buffer, std::uint64_t needle, std::uint64_t offset) {
  for (std::size_t i = 0; i < buffer.size(); ++i) buffer[i] = byte_of(needle, offset + i);
}
inline bool holds(std::span<const std::byte> buffer, std::uint64_t needle, std::uint64_t offset) {
  for (std::size_t i = 0; i < buffer.size(); ++i) {
    if (buffer[i] != byte_of(needle, offset + i)) return false;
  }
  return true;
}

struct HeardAnswer {
  wire::Answer answer;
  bool intact = false;
};

struct GatewayEar final : GatewayLink::User {
  void answered(std::uint32_t owner, const wire::Answer& answer, bool intact) override {
    REQUIRE(answers.emplace(owner, HeardAnswer{answer, intact}).second);
  }
  void passed_over(GatewayLink&) override { ++late; }
  void released(std::uint32_t owner) override { releases.push_back(owner); }
  void lost(std::uint32_t owner) override { losses.push_back(owner); }

  std::map<std::uint32_t, HeardAnswer> answers;
  int late = 0;
  std::vector<std::uint32_t> releases;
  std::vector<std::uint32_t> losses;
};

/// Answers each request at once, or as `behave` says.
struct ScriptedTarget final : TargetLink::User {
  using Behaviour = std::function<void(TargetLink&, const wire::Request&)>;

  explicit ScriptedTarget(Behaviour wanted = answer_whole) : behave(std::move(wanted)) {}
  void asked(TargetLink& link, const wire::Request& request, std::string_view token) override {
    requests.push_back(request);
    tokens.emplace_back(token);
    behave(link, request);
  }
  void cancelled(TargetLink& link, std::uint16_t slot) override {
    ++cancels;
    wire::Answer answer;
    answer.slot = slot;
    answer.status = KELP_DEADLINE;
    if (answers_cancels) link.answer(answer);
  }

  static void answer_whole(TargetLink& link, const wire::Request& request) {
    wire::Answer answer;
    answer.slot = request.slot;
    answer.bytes = request.length_bytes;
    answer.total_bytes = request.offset_bytes + request.length_bytes;
    fill(link.room(request.slot), request.needle, request.offset_bytes);
    link.answer(answer);
  }

  Behaviour behave;
  std::vector<wire::Request> requests;
  std::vector<std::string> tokens;
  int cancels = 0;
  bool answers_cancels = true;
};

struct LinkLab {
  explicit LinkLab(ScriptedTarget& target_user) : LinkLab(target_user, agreed()) {}
  LinkLab(ScriptedTarget& target_user, wire::Agreement wanted, TcpPair pair = {})
      : agreement(std::move(wanted)) {
    gateway = &here->add_gateway(std::move(pair.a), agreement, {}, ear);
    target = &there->add_target(std::move(pair.b), agreement, {}, target_user);
    gateway->start();
    target->start();
  }
  ~LinkLab() {
    // The kernel lets go of all memory first.
    gateway->fence();
    target->fence();
    CHECK(until([&] { return gateway->fenced() && target->fenced(); }));
  }

  static wire::Agreement agreed(std::uint16_t slots = 8,
                                std::uint32_t slice = wire::kMostSliceBytes) {
    wire::Agreement made;
    made.version = 1;
    made.slots = slots;
    made.max_slice_bytes = slice;
    return made;
  }
  static LinkRead read(std::uint64_t needle, std::span<std::byte> buffer,
                       std::uint64_t offset = 0) {
    LinkRead made;
    made.fid = {VolumeId{3}, NeedleId{needle}, Cookie{7}};
    made.offset_bytes = offset;
    made.buffer = buffer;
    made.timeout_us = 1'000'000;
    return made;
  }
  void turn() {
    gateway->flush();
    target->flush();
    here->poll();
    there->poll();
  }
  template <class Condition>
  bool until(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      turn();
    }
    return true;
  }

  const wire::Agreement agreement;
  GatewayEar ear;
  std::unique_ptr<TcpTransport> here{TcpTransport::create().value()};
  std::unique_ptr<TcpTransport> there{TcpTransport::create().value()};
  TcpGatewayLink* gateway = nullptr;
  TcpTargetLink* target = nullptr;
};

}  // namespace kelp::test
