// The report of kelpds of other hosts, for /peers. Pure function, any thread.
#pragma once

#include <optional>
#include <string>

#include "control/peers/peer_report.h"

namespace kelp {

/// {"peers": [{"address", "node", "role", "worker", "target_worker", "discovered", "state",
/// "error", "key_id", "path", "credits", "traffic": null or {"in_flight", "answers", "ok", "late",
/// "bytes", "p50_us", "p99_us", "max_us"}, "adapter": null or {"doorbells", "posted",
/// "signalled"}}],
///  "counters": {"accepted", "refused", "connected", "failed"}}; null: nothing is configured.
///  Where there is RDMA also "rdma_counters", the same and "pinned_bytes".
std::string peers_json(const std::optional<PeersReport>& report);

}  // namespace kelp
