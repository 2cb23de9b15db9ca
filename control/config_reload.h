// What becomes of a configuration that was read again while the daemon runs: reloadable items are
// applied, of the others it is said that they need a restart. Control thread.
#pragma once

#include <string>
#include <vector>

#include "control/config.h"

namespace kelp {

struct ConfigChange {
  std::string key;   ///< "worker.spin_us"
  std::string from;  ///< as JSON text; empty: the item is new
  std::string to;    ///< empty: the item is gone
};

struct ConfigReload {
  std::vector<ConfigChange> applied;
  std::vector<ConfigChange> needs_restart;
};

/// Takes from `wanted` what a reload may change, and notes in running.origins what else differs.
/// An error if what would run then is not sound, though `wanted` is: `running` is as it was.
Result<ConfigReload> apply_reload(Config& running, const Config& wanted);

}  // namespace kelp
