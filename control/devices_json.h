// The report of RDMA devices, for /devices. Pure function, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "control/locked_memory.h"
#include "dataplane/transport/verbs/rdma_devices.h"

namespace kelp {

/// {"devices": [{"name", "error", "firmware", "vendor_id", "vendor_part_id", "mlx5": null or
///   {"version", "flags"}, "limits": {"region_bytes", "queue_pairs", "queue_entries",
///   "completions", "segments"}, "ports": [{"number", "usable", "obstacle", "state", "link_layer",
///   "mtu_bytes", "max_mtu_bytes", "max_message_bytes", "gids": [{"index", "address", "type",
///   "interface"}], "counters": {NAME: n}}]}], "error", "usable": how many ports,
///   "locked_memory": {"limit_bytes": null or a number, "pinned_bytes", "program_bytes"}}
std::string devices_json(const RdmaDevices& found, const LockedMemory& locked,
                         std::optional<std::uint64_t> lock_limit_bytes);

}  // namespace kelp
