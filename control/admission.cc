#include "control/admission.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

namespace kelp {
namespace {

bool lists(const std::vector<std::uint32_t>& ids, std::uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

Result<Peer> Peer::of(int socket) {
  ucred credentials{};
  socklen_t bytes = sizeof credentials;
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &bytes) != 0) {
    return system_error("cannot tell who is asking");
  }
  Peer peer{credentials.uid, credentials.pid, credentials.gid, std::vector<gid_t>(64)};
  while (true) {
    bytes = static_cast<socklen_t>(peer.groups.size() * sizeof(gid_t));
    const int rc = ::getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, peer.groups.data(), &bytes);
    const std::size_t count = bytes / sizeof(gid_t);
    if (rc != 0 && (errno != ERANGE || count <= peer.groups.size())) {
      return system_error("cannot tell the groups of who is asking");
    }
    peer.groups.resize(count);
    if (rc == 0) return peer;
  }
}

Result<void> AdmissionList::check(const Peer& peer) const {
  if (uids.empty() && gids.empty()) return {};
  if (own_process && peer.pid == ::getpid()) return {};
  if (lists(uids, peer.uid) || lists(gids, peer.gid)) return {};
  const bool by_group = std::any_of(peer.groups.begin(), peer.groups.end(),
                                    [this](gid_t group) { return lists(gids, group); });
  if (by_group) return {};
  return plain_error(
      "uid " + std::to_string(peer.uid) + ", gid " + std::to_string(peer.gid) +
      " is on neither list of who may attach (client.allow_uids, client.allow_gids)");
}

}  // namespace kelp
