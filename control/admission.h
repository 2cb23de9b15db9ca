// Who may attach: the user and the groups of the program at the other end of a socket.
// Any thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

#include "shm_ring/result.h"

namespace kelp {

/// The program that connected, as the kernel knows it (SO_PEERCRED, SO_PEERGROUPS): what it was at
/// the moment of connect(), whatever it became since.
struct Peer {
  uid_t uid = 0;
  pid_t pid = 0;  ///< 0 across PID namespaces
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< supplementary ones

  static Result<Peer> of(int socket);
};

/// Both lists empty: whoever may open the socket.
struct AdmissionList {
  std::vector<std::uint32_t> uids;
  std::vector<std::uint32_t> gids;  ///< of the program, or one of its supplementary groups
  /// The process that asks itself is on no list and comes in: kelpd's own sidecar does.
  bool own_process = false;

  /// The error names who asked, and the keys of the lists.
  Result<void> check(const Peer& peer) const;
};

}  // namespace kelp
