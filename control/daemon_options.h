// The configuration as the parts of the daemon take it: plain structs, without TOML.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "control/attach_server.h"
#include "control/config.h"
#include "control/gateway/gateway.h"
#include "control/peers/peer_connections.h"
#include "control/peers/rdma_connections.h"
#include "dataplane/worker/worker.h"

namespace kelp {

AttachLimits attach_limits(const ClientConfig& config);
/// One per CPU that is named, or a single one on no CPU in particular.
std::uint32_t worker_count(const Config& config);
/// Of worker number `index`; `pulses` are those of config.target.volume_servers.
WorkerOptions worker_options(const Config& config, std::uint32_t index,
                             const std::vector<std::shared_ptr<ServerPulse>>& pulses);

/// Errors: an address that is none, a key that cannot be read.
Result<GatewayOptions> gateway_options(const Config& config);

/// The same; privileges are not dropped yet.
Result<PeerOptions> peer_options(const Config& config);
Result<RdmaOptions> rdma_options(const Config& config);

}  // namespace kelp
