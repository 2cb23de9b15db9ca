// Makes RDMA connections between kelpds, for the workers: listens for gateways, connects to targets
// that have said over TCP where they can be reached so, talks with either until both trust each
// other, and hands the queue pair over. What ends is made anew while it is wanted, after a pause
// that grows; reads take the next path meanwhile.
//
// Belongs to the control thread; driven like PeerConnections. After privileges are dropped: a
// device opened before refuses every post. rdma_connections.cc is the loop and how connections end,
// rdma_connect.cc how they come about.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/gateway/server_address.h"
#include "control/peers/peer_report.h"
#include "control/peers/rdma_cm.h"
#include "control/peers/rdma_resources.h"
#include "control/peers/socket_address.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct RdmaOptions {
  std::vector<ServerAddress> listen;    ///< where gateways of other hosts connect
  bool dials = false;                   ///< targets that can be reached so
  std::optional<SocketAddress> source;  ///< our end of those; none: the route's choice
  bool domain_per_peer = false;         ///< a target reaches no memory by the keys of another one
  std::size_t arena_bytes = 64 << 20;   ///< of each worker of a target
  bool mlx5 = true;                     ///< see VerbsEndpoint
  std::uint8_t retries = 6;             ///< 7 would be for ever
  std::uint8_t ack_timeout = 17;        ///< 4.096 us times 2 to this power
  std::uint8_t traffic_class = 0;
  wire::PeerKeys keys;
  bool allow_unauthenticated = false;
  std::string node;
};

class RdmaConnections {
 public:
  static Result<std::unique_ptr<RdmaConnections>> create(RdmaOptions options);
  ~RdmaConnections();

  /// The workers to connect; they outlive this. Begins.
  void start(std::vector<Worker*> workers);
  int epoll_fd() const noexcept { return epoll_.get(); }
  std::optional<std::chrono::milliseconds> timeout() const;
  void run();
  /// No new connections, in either direction.
  void drain();
  /// Ends those there are: nothing of theirs lands anywhere afterwards. Workers still run, and are
  /// to be stopped next.
  void stop();

  /// A target's worker can be reached at `where`, and one of ours would like to.
  void want(PeerIndex peer, std::uint32_t worker, std::uint16_t target_worker, SocketAddress where);
  /// It has gone: no more attempts. A connection that is up stays.
  void forget(PeerIndex peer, std::uint32_t worker, std::uint16_t target_worker);
  /// A worker has let go of one.
  void ended(const LinkEnded& ended);

  /// For memory that targets may answer into.
  MemoryRegistrar* registrar() noexcept { return &resources_.regions(); }
  /// Whether some target can be asked by RDMA now.
  bool reaches_target() const;
  std::vector<PeerReport> reports() const;
  PeerCounters counters() const noexcept { return counters_; }
  std::uint64_t pinned_bytes() const noexcept { return resources_.regions().pinned_bytes(); }

 private:
  using Clock = std::chrono::steady_clock;

  /// One that is being made, or that a worker has.
  struct Connection {
    RdmaId id;
    std::shared_ptr<VerbsEndpoint> endpoint;
    std::unique_ptr<wire::GatewayHandshake> gateway;  // one of both
    std::unique_ptr<wire::TargetHandshake> target;
    bool established = false;
    RdmaPath path;  // known once it is established
    bool with_worker = false;
    std::string failure;  // its refusal is on the way, and it ends with `end`
    Clock::time_point end;
    std::size_t dial = 0;  // of a gateway's
    std::string address;
    wire::Agreement agreement;
    std::shared_ptr<LinkCounters> traffic;

    bool is_gateway() const noexcept { return gateway != nullptr; }
    wire::Handshake& handshake() {
      return gateway != nullptr ? static_cast<wire::Handshake&>(*gateway) : *target;
    }
  };
  /// A connection we want to have.
  struct Dial {
    PeerIndex peer = 0;
    std::uint32_t worker = 0;
    std::uint16_t target_worker = 0;
    SocketAddress where;
    bool wanted = false;
    std::uint64_t connection = 0;  // 0: none
    Clock::time_point next{};
    std::uint32_t failures = 0;  // since one that lasted
    Clock::time_point up_since{};
    std::string error;
    std::shared_ptr<LinkCounters> traffic;
  };
  class Ear;

  explicit RdmaConnections(RdmaOptions options);
  Result<void> listen_at(const ServerAddress& address);
  bool may_go_without_key(const sockaddr& address) const;
  bool take_event();
  void heard(std::uint64_t id, const rdma_cm_event& event);
  void asked(RdmaId id, std::span<const std::byte> private_data);
  void refuse(rdma_cm_id* id, wire::RefusalCode code, const std::string& why);
  void dial(std::size_t which);
  Result<void> connect(Connection& connection);
  Result<void> make_endpoint(Connection& connection, std::uint16_t slots);
  void established(std::uint64_t id);
  void send_output(Connection& connection);
  void go_on(std::uint64_t id);
  void agreed(std::uint64_t id);
  void fail(std::uint64_t id, const std::string& why);
  static void log_refused(const std::string& peer, const std::string& why);
  void dial_failed(std::size_t which, std::string why);
  void end_queue_pair(Connection& connection);
  static std::uint32_t worker_of(const Connection& connection);
  void take_ends();

  const RdmaOptions options_;
  RdmaResources resources_;
  std::vector<Worker*> workers_;
  UniqueFd epoll_;
  UniqueFd end_bell_;
  RdmaEvents events_;
  std::vector<RdmaId> listeners_;
  std::map<std::uint64_t, Connection> connections_;
  std::uint64_t last_id_ = 15;  // below are ids of what is no connection
  std::vector<Dial> dials_;
  PeerCounters counters_;
  bool draining_ = false;
};

}  // namespace kelp
