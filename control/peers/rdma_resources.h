// What RDMA connections share: protection domains, programs' memory in them, and the memory targets
// send from. Made when it is needed first, kept until the end.
//
// Belongs to the control thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <utility>

#include "control/peers/rdma_regions.h"
#include "dataplane/transport/verbs/verbs_endpoint.h"
#include "dataplane/worker/peer_links.h"

namespace kelp {

class RdmaResources {
 public:
  /// `domain_per_peer`: a target reaches no memory by the keys of another one.
  RdmaResources(bool domain_per_peer, std::size_t arena_bytes)
      : domain_per_peer_(domain_per_peer), arena_bytes_(arena_bytes) {}

  /// That `peer` may write through.
  Result<std::shared_ptr<RdmaDomain>> gateway_domain(ibv_context* device, PeerIndex peer);
  /// That nobody may.
  Result<std::shared_ptr<RdmaDomain>> target_domain(ibv_context* device);
  /// In that one.
  Result<std::shared_ptr<RegisteredArena>> arena(ibv_context* device, std::uint32_t worker);

  RdmaRegions& regions() noexcept { return regions_; }
  const RdmaRegions& regions() const noexcept { return regions_; }

 private:
  const bool domain_per_peer_;
  const std::size_t arena_bytes_;
  RdmaRegions regions_;
  std::map<ibv_context*, std::shared_ptr<RdmaDomain>> target_domains_;
  std::map<std::pair<ibv_context*, PeerIndex>, std::shared_ptr<RdmaDomain>> gateway_domains_;
  std::map<std::pair<ibv_context*, std::uint32_t>, std::shared_ptr<RegisteredArena>> arenas_;
};

}  // namespace kelp
