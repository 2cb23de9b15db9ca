// Everything the daemon holds for one attached program.
//
// The control thread makes and destroys it. In between each ring, and each share, belongs to its
// worker; what is not atomic is not changed.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/memory/client_segment.h"
#include "dataplane/worker/server_ring.h"

namespace kelp {

/// What one client has on one worker. Written by that worker alone; the counts may be read by
/// anyone.
struct ClientShare {
  /// A request with a buffer of `bytes` begins.
  void begin(std::uint64_t bytes) noexcept {
    // relaxed load + store instead of an atomic add: only one thread writes; orders nothing.
    requests.store(requests.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    buffer_bytes.store(buffer_bytes.load(std::memory_order_relaxed) + bytes,
                       std::memory_order_relaxed);
  }
  /// And ends: nothing writes into its buffer any more.
  void end(std::uint64_t bytes) noexcept {
    requests.store(requests.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    buffer_bytes.store(buffer_bytes.load(std::memory_order_relaxed) - bytes,
                       std::memory_order_relaxed);
  }

  std::vector<ServerRing*> rings;          ///< those the worker polls
  std::uint32_t next_ring = 0;             ///< looked at first next time
  bool queues = false;                     ///< left more in its rings than was taken last
  bool full = false;                       ///< has all it may have in flight; nothing more is taken
  std::uint32_t ration = 0;                ///< while its memory is distrusted: may still be taken
  Ticks next_ration = 0;                   ///< and then some more
  std::atomic<std::uint32_t> requests{0};  ///< in flight; a no-op never is
  std::atomic<std::uint64_t> buffer_bytes{0};  ///< of their buffers
};

struct Client {
  explicit Client(std::size_t workers = 1) : shares(workers) {}

  std::uint64_t id = 0;
  std::string name;  ///< as the program calls itself; untrusted
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;  ///< 0 across PID namespaces
  std::chrono::system_clock::time_point since;
  std::unique_ptr<ClientSegment> segment;
  std::vector<ClientShare> shares;  ///< by worker
  std::vector<std::unique_ptr<ServerRing>>
      rings;  ///< ring (channel c, worker w) is c * workers + w
};

}  // namespace kelp
