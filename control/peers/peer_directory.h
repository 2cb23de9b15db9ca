// Which kelpd is beside which volume server: as the configuration says, else guessed at the usual
// port of the server's host. Whether there is one is for PeerConnections to find out.
#pragma once

#include <cstdint>
#include <mutex>
#include <string_view>
#include <vector>

#include "control/gateway/server_address.h"
#include "dataplane/worker/peer_links.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/result.h"

namespace kelp {

inline constexpr std::uint16_t kPeerPort = 18516;

struct KnownPeer {
  ServerAddress kelpd;
  ServerAddress server = {};  ///< beside it, and no other; port 0: any of that host. No host: any
                              ///< of the kelpd's own host
  bool guessed = false;
};

/// "HOST:PORT" of a kelpd, or "SERVER=HOST:PORT" where SERVER is a volume server of another
/// address, "HOST" or "HOST:PORT".
Result<KnownPeer> parse_known_peer(std::string_view text);

bool is_loopback(const ServerAddress& address);

/// Any thread.
class PeerDirectory {
 public:
  struct Guesses {
    bool wanted = false;
    bool only_loopback = true;         ///< nothing else would be connected to
    std::vector<ServerAddress> never;  ///< where we listen ourselves
  };

  /// `changed` is told when there is a new peer, and outlives this.
  PeerDirectory(std::vector<KnownPeer> configured, Guesses guesses, Waker* changed = nullptr);

  /// kNoPeer: there is none.
  PeerIndex beside(std::string_view volume_server);
  /// Those of indices from `first` on.
  std::vector<KnownPeer> from(std::size_t first) const;

 private:
  bool may_guess(const ServerAddress& server) const;

  const Guesses guesses_;
  Waker* const changed_;
  mutable std::mutex mutex_;
  std::vector<KnownPeer> peers_;  // by PeerIndex; only grows
};

}  // namespace kelp
