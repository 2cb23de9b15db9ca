// Whose a file is to be. Plain values.
#pragma once

#include <sys/types.h>

namespace kelp {

struct FileOwner {
  uid_t uid = static_cast<uid_t>(-1);  ///< -1: left as it is, as chown() has it
  gid_t gid = static_cast<gid_t>(-1);
};

}  // namespace kelp
