// A target's end of a TCP connection: see link.h.
#pragma once

#include <vector>

#include "dataplane/transport/link.h"
#include "dataplane/transport/tcp/tcp_connection.h"
#include "dataplane/transport/zeroed_pages.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/wire/request_slots.h"

namespace kelp {

class TcpTargetLink final : public TargetLink, private TcpConnection::User {
 public:
  /// Rooms are pages that nobody has touched yet: they cost memory once they are used. Throws
  /// std::bad_alloc.
  TcpTargetLink(Uring& uring, UniqueFd socket, std::uint64_t id, const wire::Agreement& agreement,
                std::span<const std::byte> received, TargetLink::User& user);

  std::span<std::byte> room(std::uint16_t slot) override;
  bool sends_files() const override { return true; }
  void answer(wire::Answer answer, const AnswerBytes& bytes) override;
  bool answer_at_once(std::uint16_t) override { return false; }
  void give_back(std::span<std::byte>) override {}
  bool flush() override { return connection_.flush(); }
  void drain() override;
  void fence() override { connection_.fence(); }
  bool fenced() const override { return connection_.fenced(); }
  bool broken() const override { return connection_.broken(); }
  std::uint16_t in_flight() const override { return slots_.in_flight(); }

  /// Once, before anything else.
  void start() { connection_.start(); }
  TcpConnection& connection() noexcept { return connection_; }
  const char* why_broken() const noexcept { return connection_.why_broken(); }

 private:
  struct Request {
    std::uint8_t generation = 0;
    std::uint32_t length_bytes = 0;
  };

  bool take_frame(wire::FrameKind kind, std::span<const std::byte> frame,
                  TcpConnection::Payload& payload) override;
  void take_payload(bool) override {}

  TargetLink::User& user_;
  wire::TargetSlots slots_;
  std::vector<Request> requests_;  // by slot
  const std::uint16_t credits_;
  const std::uint32_t max_slice_bytes_;
  ZeroedPages rooms_;
  TcpConnection connection_;
};

}  // namespace kelp
