// What /metrics tells of connections to other kelpds, and of RDMA devices. Control thread.
#pragma once

#include <vector>

#include "control/exposition.h"
#include "control/peers/peer_report.h"
#include "dataplane/transport/verbs/rdma_devices.h"

namespace kelp {

void write_peer_metrics(Exposition& out, const PeersReport& report);
void write_rdma_port_metrics(Exposition& out, const std::vector<RdmaPortCounters>& ports);

}  // namespace kelp
