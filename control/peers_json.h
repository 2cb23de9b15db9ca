// The report of kelpds of other hosts, for /peers. Pure function, any thread.
#pragma once

#include <string>
#include <vector>

#include "control/peers/peer_connections.h"
#include "control/peers/rdma_connections.h"

namespace kelp {

/// {"peers": [{"address", "node", "role", "worker", "target_worker", "discovered", "state",
/// "error", "key_id", "path", "credits", "traffic": null or {"in_flight", "answers", "ok", "late",
/// "bytes", "p50_us", "p99_us", "max_us"}, "adapter": null or {"doorbells", "posted",
/// "signalled"}}],
///  "counters": {"accepted", "refused", "connected", "failed"}}; null `peers`: nothing is
///  configured. With `rdma` also "rdma_counters", the same and "pinned_bytes".
std::string peers_json(const PeerConnections* peers, const RdmaConnections* rdma = nullptr);

}  // namespace kelp
