// Who the daemon runs as: started as root it becomes somebody else, for good, before it starts a
// thread or takes a client.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "shm_ring/result.h"

namespace kelp {

struct Identity {
  std::string name;
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;  ///< all of them, `gid` included
};

/// The identity to take on: of daemon.user, with daemon.group in place of the user's own group
/// where that is set, and every group the user is a member of: volumes may be readable by one of
/// those only. Nothing: stay who we are, because `user` is empty or names who we are already.
/// Errors: no such user or group, only root can become another, a group without a user.
Result<std::optional<Identity>> find_identity(const std::string& user, const std::string& group);

/// Becomes `identity` and can never go back: groups, ids, no capabilities, no_new_privs. Reads all
/// of it back; on an error the process is somebody in between, and must end.
/// The process has one thread: no_new_privs is a thread's own until others inherit it.
Result<void> drop_privileges(const Identity& identity);

}  // namespace kelp
