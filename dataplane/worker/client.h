// Everything the daemon holds for one attached program.
//
// The control thread makes and destroys it. In between each ring belongs to its worker; what is
// not atomic is not changed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/memory/client_segment.h"
#include "dataplane/worker/server_ring.h"

namespace kelp {

struct Client {
  std::uint64_t id = 0;
  std::string name;  ///< as the program calls itself; untrusted
  uid_t uid = 0;
  pid_t pid = 0;  ///< 0 across PID namespaces
  std::unique_ptr<ClientSegment> segment;
  std::vector<std::unique_ptr<ServerRing>>
      rings;  ///< ring (channel c, worker w) is c * workers + w
};

}  // namespace kelp
