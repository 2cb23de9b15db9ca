// All TCP links of one worker, and the io_uring they share.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "dataplane/transport/tcp/tcp_gateway_link.h"
#include "dataplane/transport/tcp/tcp_target_link.h"
#include "dataplane/transport/uring.h"

namespace kelp {

class TcpTransport {
 public:
  /// On the thread that will use it.
  static Result<std::unique_ptr<TcpTransport>> create();

  /// A socket that is connected, and whose handshake came to `agreement`; `received` came behind
  /// it. The link is the transport's until remove(). Throws std::bad_alloc.
  TcpGatewayLink& add_gateway(UniqueFd socket, const wire::Agreement& agreement,
                              std::span<const std::byte> received, GatewayLink::User& user);
  TcpTargetLink& add_target(UniqueFd socket, const wire::Agreement& agreement,
                            std::span<const std::byte> received, TargetLink::User& user);
  /// Only what is fenced.
  void remove(const GatewayLink& link);
  void remove(const TargetLink& link);

  /// Receives what has come and tells links; how much that was. Never waits, and makes no system
  /// call when there is nothing, except to ask the connection that has just been busy.
  unsigned poll() noexcept;
  /// Whether poll() would find something. For after arming fd().
  bool has_work() const noexcept { return uring_->has_work(); }
  int fd() const noexcept { return uring_->fd(); }
  void arm(bool armed) noexcept;
  const Uring& uring() const noexcept { return *uring_; }

 private:
  explicit TcpTransport(std::unique_ptr<Uring> uring) : uring_(std::move(uring)) {}
  TcpConnection* find(std::uint64_t id) noexcept;
  void make_room();
  void make_ready(TcpConnection& connection) noexcept;
  unsigned receive_ready() noexcept;
  bool receive(TcpConnection& connection) noexcept;
  void forget(const TcpConnection& connection) noexcept;
  unsigned ask_busy() noexcept;
  void note_arrival(TcpConnection& connection) noexcept;
  void leave_busy() noexcept;

  // Each has room for all connections, so that poll() does not allocate.
  std::vector<TcpConnection*> ready_;  // something came and was not received yet; each once
  std::vector<TcpConnection*> turn_;   // those of them whose turn it is
  // The one that everything comes from, while that is so: it is asked in each poll(), not watched.
  TcpConnection* busy_ = nullptr;
  unsigned in_vain_ = 0;           // so often in a row
  TcpConnection* last_ = nullptr;  // that something was received from
  unsigned in_a_row_ = 0;          // and so often before anything came from another one
  std::uint64_t last_id_ = 0;
  std::unique_ptr<Uring> uring_;
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<TcpGatewayLink>> gateways_;
  absl::flat_hash_map<std::uint64_t, std::unique_ptr<TcpTargetLink>> targets_;
};

}  // namespace kelp
