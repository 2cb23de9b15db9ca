// The RDMA connection manager's objects with one owner each, and what they tell, in words.
#pragma once

#include <rdma/rdma_cma.h>

#include <cstdint>
#include <memory>
#include <string>

#include "control/peers/rdma_path.h"

namespace kelp {

struct DestroyRdmaId {
  void operator()(rdma_cm_id* id) const noexcept { ::rdma_destroy_id(id); }
};
/// Its queue pair is gone before, and every event of it acknowledged.
using RdmaId = std::unique_ptr<rdma_cm_id, DestroyRdmaId>;

struct DestroyRdmaEvents {
  void operator()(rdma_event_channel* channel) const noexcept {
    ::rdma_destroy_event_channel(channel);
  }
};
/// Outlives the ids whose events come by it.
using RdmaEvents = std::unique_ptr<rdma_event_channel, DestroyRdmaEvents>;

/// Why attempts fail, from an event's status: -errno of resolving, or the CM's reason of a refusal.
std::string rdma_reason(const rdma_cm_event& event);

/// Before there is a connection: no address of its port by RoCE v2 is the one it has. "": all is
/// well.
std::string rdma_obstacle(const rdma_cm_id& id);

/// Of one that is established.
RdmaPath rdma_path(const rdma_cm_id& id);

}  // namespace kelp
