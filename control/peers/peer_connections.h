// Makes connections between kelpds, for the workers: listens for gateways, connects to targets,
// talks with either until both trust each other, and hands the socket over. What ends is made anew,
// after a pause that grows.
//
// Belongs to the control thread; driven like HttpClient: wait on epoll_fd() for at most timeout(),
// then run().
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/gateway/server_address.h"
#include "control/peers/name_lookup.h"
#include "control/peers/peer_directory.h"
#include "control/peers/peer_report.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct PeerOptions {
  std::vector<ServerAddress> listen;  ///< where gateways of other hosts connect
  std::vector<KnownPeer> kelpds;      ///< targets of other hosts
  bool discover = false;              ///< and those at the usual port of volume servers' hosts
  wire::PeerKeys keys;                ///< none: only within this host, unless
  bool allow_unauthenticated = false;
  std::string node;             ///< what we call ourselves
  std::uint16_t rdma_port = 0;  ///< gateways are told that they can reach us by RDMA there; 0: not
  wire::RdmaAddress rdma_address{};  ///< and at which address; zeroes: the one they came to
};

class RdmaConnections;

class PeerConnections {
 public:
  /// Opens the listeners. Privileges are not dropped yet: ports below 1024 may be among them.
  /// `control` is told when run() has something new to do.
  static Result<std::unique_ptr<PeerConnections>> create(PeerOptions options,
                                                         Waker* control = nullptr);
  ~PeerConnections();

  /// The workers to connect; they outlive this. Begins. `rdma`, where there is one, is told of
  /// targets that can be reached so, and outlives this.
  void start(std::vector<Worker*> workers, RdmaConnections* rdma = nullptr);
  int epoll_fd() const noexcept { return epoll_.get(); }
  std::optional<std::chrono::milliseconds> timeout() const;
  void run();
  /// No new connections, in either direction.
  void stop();

  /// For whoever finds out where volumes are. Any thread.
  PeerDirectory& directory() noexcept { return directory_; }

  std::vector<PeerReport> reports() const;
  PeerCounters counters() const noexcept { return counters_; }

 private:
  using Clock = std::chrono::steady_clock;

  /// One that is being talked with.
  struct Talk {
    UniqueFd socket;
    std::unique_ptr<wire::GatewayHandshake> gateway;  // one of both
    std::unique_ptr<wire::TargetHandshake> target;
    std::vector<std::byte> unsent;
    bool connected = false;
    std::string address;
    Clock::time_point end;
    std::size_t dial = 0;  // of a gateway's handshake
    SocketAddress where;   // it connects to

    wire::Handshake& handshake() {
      return gateway != nullptr ? static_cast<wire::Handshake&>(*gateway) : *target;
    }
  };
  /// A connection we want to have: of one of our workers to one of a target's.
  struct Dial {
    PeerIndex peer = 0;
    std::uint32_t worker = 0;
    std::uint16_t target_worker = 0;
    enum class State : std::uint8_t {
      kWaiting,
      kResolving,
      kTalking,
      kUp,
    } state = State::kWaiting;
    bool was_up = false;  // ever
    Clock::time_point next{};
    std::uint32_t failures = 0;  // since one that lasted
    Clock::time_point up_since{};
    std::string error;
    std::uint32_t key_id = 0;
    std::uint16_t slots = 0;
    std::shared_ptr<LinkCounters> traffic;  // of all its connections
  };
  /// A gateway's connection that a worker has.
  struct Accepted {
    std::string address, node;
    std::uint32_t worker = 0, key_id = 0;
    std::uint64_t id = 0;  // of its link
    std::uint16_t slots = 0;
    std::shared_ptr<LinkCounters> traffic;
  };

  PeerConnections(PeerOptions options, Waker* control);
  Result<void> listen_at(const ServerAddress& address);
  bool may_go_without_key(const ServerAddress& address) const;
  void accept_from(int listener);
  bool let_go_of_oldest_stranger();
  void pause_listeners(bool pause);
  void meet_new_peers();
  void dial(std::size_t which);
  void connect(std::size_t which, const SocketAddress& where);
  void take_names();
  void go_on(std::uint64_t id, std::uint32_t events);
  bool send_and_receive(Talk& talk, std::uint32_t events, std::string& error);
  void agreed(std::uint64_t id);
  void failed(std::uint64_t id, const std::string& why);
  void dial_failed(std::size_t which, std::string why);
  void dial_others(const Dial& first, std::uint16_t target_workers);
  void watch(std::uint64_t id, bool added);
  void take_ended();
  void tell_rdma(const Dial& dial, const Talk& talk);

  const PeerOptions options_;
  std::vector<Worker*> workers_;
  RdmaConnections* rdma_ = nullptr;
  UniqueFd epoll_;
  std::vector<UniqueFd> listeners_;
  std::optional<Clock::time_point> listeners_pause_end_;
  std::map<std::uint64_t, Talk> talks_;
  std::uint64_t last_id_ = 0;
  PeerDirectory directory_;
  std::vector<KnownPeer> known_;  // of it, so far; by PeerIndex
  NameLookup names_;
  std::vector<Dial> dials_;
  std::vector<Accepted> accepted_;
  PeerCounters counters_;
  bool stopped_ = false;
};

}  // namespace kelp
