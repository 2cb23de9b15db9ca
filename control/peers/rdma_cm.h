// The RDMA connection manager's objects with one owner each, and what they tell, in words.
#pragma once

#include <rdma/rdma_cma.h>

#include <cstdint>
#include <memory>
#include <string>

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

/// What travels by anything but RoCE v2 or InfiniBand does not leave its segment. "": nothing.
std::string rdma_obstacle(const rdma_cm_id& id);

/// Of the path, as both ends agreed upon it; 0: unknown.
std::uint32_t rdma_mtu_bytes(rdma_cm_id& id);

}  // namespace kelp
