// What the sidecar is started with. control/ makes it of [sidecar].
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace kelp::sidecar {

/// Which answers of /read are marked as a mount wants them, so that it uses them.
enum class MountAccepts : std::uint8_t {
  kDataplane,  ///< from volume files, the cache, TCP or verbs
  kRdma,       ///< from verbs only
  kAny,        ///< those from HTTP, too
};

/// What the daemon knows and the sidecar tells. Written by the control thread.
struct Facts {
  std::atomic<bool> serving{true};          ///< false: switched off by kelpctl disable
  std::atomic<bool> verbs_possible{false};  ///< an answer over verbs may come
  std::atomic<bool> verbs_connected{false};
};

struct Options {
  std::vector<UniqueFd> listeners;  ///< listening and non-blocking
  std::string run_dir;              ///< of the kelpd whose rings are used
  MountAccepts mount_accepts = MountAccepts::kDataplane;
  std::uint32_t max_connections = 16384;
  std::string temp_dir;  ///< answers are offered as files there, too; empty: none is
  std::uint64_t temp_min_bytes = 0;
  std::uint64_t temp_max_bytes = 0;  ///< of all files together
  std::shared_ptr<const Facts> facts = std::make_shared<Facts>();
  /// Told by the sidecar's thread, once: asked to drain it has, and no client is left.
  std::function<void()> drained = [] {};
};

}  // namespace kelp::sidecar
