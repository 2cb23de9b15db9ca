// A gateway's end of a TCP connection: see link.h.
#pragma once

#include <vector>

#include "dataplane/transport/link.h"
#include "dataplane/transport/tcp/tcp_connection.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/wire/request_slots.h"

namespace kelp {

class TcpGatewayLink final : public GatewayLink, private TcpConnection::User {
 public:
  TcpGatewayLink(Uring& uring, UniqueFd socket, std::uint64_t id, const wire::Agreement& agreement,
                 std::span<const std::byte> received, GatewayLink::User& user);

  std::optional<std::uint16_t> ask(std::uint32_t owner, const LinkRead& read) override;
  bool let_go(std::uint16_t slot) override;
  bool flush() override { return connection_.flush(); }
  void fence() override;
  bool fenced() const override { return told_ && connection_.fenced(); }
  bool ending() const override { return draining_ || connection_.broken(); }
  std::uint16_t in_flight() const override { return slots_.in_flight(); }
  std::uint32_t max_slice_bytes() const override { return max_slice_bytes_; }
  kelp_path path() const override { return KELP_PATH_TCP; }

  /// Once, before anything else.
  void start() { connection_.start(); }
  TcpConnection& connection() noexcept { return connection_; }
  const char* why_broken() const noexcept { return connection_.why_broken(); }

 private:
  struct Request {
    std::span<std::byte> buffer;
    std::uint8_t generation = 0;
    std::uint32_t owner = 0;
  };

  bool take_frame(wire::FrameKind kind, std::span<const std::byte> frame,
                  TcpConnection::Payload& payload) override;
  void take_payload(bool intact) override;
  void has_ended() override { tell_if_fenced(); }
  bool take_answer(std::span<const std::byte> frame, TcpConnection::Payload& payload);
  void tell_if_fenced();

  GatewayLink::User& user_;
  wire::GatewaySlots slots_;
  std::vector<Request> requests_;  // by slot
  const std::uint32_t max_slice_bytes_;
  bool draining_ = false;
  bool told_ = false;
  wire::Answer answer_;  // the one whose payload comes
  TcpConnection connection_;
};

}  // namespace kelp
