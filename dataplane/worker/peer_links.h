// Connections to workers of other hosts, as a worker holds them: which kelpd reads which volume,
// and what of it is up now. Control makes the connections (see NewLink); a link that ends is
// reported, and made anew.
//
// Belongs to one worker.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "dataplane/transport/tcp/tcp_transport.h"
#include "dataplane/transport/verbs/verbs_transport.h"
#include "dataplane/wire/handshake.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

/// Index of a kelpd in the configuration.
using PeerIndex = std::uint32_t;
inline constexpr PeerIndex kNoPeer = UINT32_MAX;

/// A connection whose handshake is over, on its way from control to a worker.
struct NewLink {
  enum class Role : std::uint8_t {
    kGateway,  ///< we ask `peer`
    kTarget,   ///< we are asked
  };
  Role role = Role::kTarget;
  UniqueFd socket;                          ///< of a TCP connection, or
  std::shared_ptr<VerbsEndpoint> endpoint;  ///< of one by RDMA
  std::shared_ptr<RegisteredArena> arena;   ///< and, of a target's end
  wire::Agreement agreement;
  std::vector<std::byte> received;  ///< behind the handshake, on a socket
  PeerIndex peer = kNoPeer;
  std::uint64_t id = 0;                    ///< control's
  std::shared_ptr<LinkCounters> counters;  ///< what comes of it; null: nobody wants to know
};

/// What becomes of one, on its way back.
struct LinkEnded {
  NewLink::Role role = NewLink::Role::kTarget;
  PeerIndex peer = kNoPeer;
  std::uint16_t target_worker = 0;
  std::uint64_t id = 0;
  kelp_path path = KELP_PATH_TCP;
};

class PeerLinks {
 public:
  PeerLinks() = default;
  ~PeerLinks() { close(); }
  PeerLinks(const PeerLinks&) = delete;
  PeerLinks& operator=(const PeerLinks&) = delete;
  /// Fences every link, and waits a moment for the kernel to let go of all memory. On the thread
  /// that uses them; they may be destroyed on another one afterwards.
  void close() noexcept;

  /// What comes by it wakes who waits for `epoll`, once armed. False: there is no io_uring, or no
  /// memory.
  bool add(std::unique_ptr<NewLink> made, GatewayLink::User& gateway, TargetLink::User& target,
           int epoll);

  /// `volume` is read by `peer`, as far as is known, until then.
  void learn(std::uint32_t volume, PeerIndex peer, Ticks until);
  void forget(std::uint32_t volume) { routes_.erase(volume); }
  /// Who reads it, as far as is known. Of a route whose time is up nobody is told once, whose read
  /// is to find out anew, and the others for so long go on by it.
  std::optional<PeerIndex> peer_for(std::uint32_t volume, Ticks now) noexcept;
  /// The link to that peer by `path` to ask for a volume now; null: there is none, or it is not up.
  GatewayLink* link_to(PeerIndex peer, std::uint32_t volume, kelp_path path) noexcept;

  /// It let a request wait for too long: it is asked nothing more until something is heard of it,
  /// and fenced if nothing is for some time.
  void suspect(const GatewayLink& link, Ticks now) noexcept;
  void heard(const GatewayLink& link) noexcept;

  /// Takes what has come; how much that was.
  unsigned poll() noexcept {
    return (tcp_ == nullptr ? 0 : tcp_->poll()) + (verbs_ == nullptr ? 0 : verbs_->poll());
  }
  /// Sends what was said since the last time. Cheap where there is nothing. True: there is more.
  bool flush() noexcept;
  /// Asks nobody to ask anything new.
  void drain() noexcept;
  /// Lets go of links that have ended, and says which.
  template <class Ended>
  void sweep(Ticks now, Ended&& ended) {
    std::erase_if(gateways_, [&](const Gateway& each) {
      show_in_flight(*each.link);
      const bool silent = each.suspected != 0 && now - each.suspected > fence_after_;
      if (silent || (each.link->ending() && each.link->in_flight() == 0)) each.link->fence();
      if (!each.link->fenced()) return false;
      const kelp_path path = each.link->path();
      remove(*each.link, path);
      ended(LinkEnded{NewLink::Role::kGateway, each.peer, each.target_worker, each.id, path});
      return true;
    });
    std::erase_if(targets_, [&](const Target& each) {
      show_in_flight(*each.link);
      // Reads for it may still write into its rooms.
      if (!each.link->fenced() || each.link->in_flight() != 0) return false;
      const kelp_path path = each.path;
      remove(*each.link, path);
      ended(LinkEnded{NewLink::Role::kTarget, kNoPeer, 0, each.id, path});
      return true;
    });
  }

  bool any() const noexcept { return !gateways_.empty() || !targets_.empty(); }
  /// Whether what comes wakes who waits for fd(); see Uring::arm().
  void arm(bool armed) noexcept {
    if (tcp_ != nullptr) tcp_->arm(armed);
    if (verbs_ != nullptr) verbs_->arm(armed);
  }

 private:
  struct Gateway {
    PeerIndex peer = kNoPeer;
    std::uint16_t target_worker = 0;
    std::uint16_t target_workers = 1;
    GatewayLink* link = nullptr;
    std::uint64_t id = 0;
    Ticks suspected = 0;  // since then; 0: it is not
  };
  struct Target {
    TargetLink* link = nullptr;
    std::uint64_t id = 0;
    kelp_path path = KELP_PATH_TCP;
  };
  struct Route {
    PeerIndex peer = kNoPeer;
    Ticks until = 0;
  };

  void start(NewLink& made, GatewayLink::User& gateway, TargetLink::User& target);
  bool make_transport(bool verbs, int epoll);
  template <class Link>
  void remove(const Link& link, kelp_path path) {
    if (path == KELP_PATH_VERBS) {
      verbs_->remove(link);
    } else {
      tcp_->remove(link);
    }
  }
  template <class Link>
  static void show_in_flight(const Link& link) noexcept {
    // relaxed: a number by itself.
    link.counters().in_flight.store(link.in_flight(), std::memory_order_relaxed);
  }

  static constexpr std::uint64_t kFenceAfterUs = 1'000'000;
  static constexpr std::uint64_t kFindOutUs = 2'000'000;

  bool closed_ = false;
  const Ticks find_out_ = TickRate::instance().from_us(kFindOutUs);
  const Ticks fence_after_ = TickRate::instance().from_us(kFenceAfterUs);
  std::unique_ptr<TcpTransport> tcp_;  // made with the first link of its kind
  std::unique_ptr<VerbsTransport> verbs_;
  std::vector<Gateway> gateways_;
  std::vector<Target> targets_;
  absl::flat_hash_map<std::uint32_t, Route> routes_;
};

}  // namespace kelp
