#include "control/peers/rdma_resources.h"

#include <new>

namespace kelp {

Result<std::shared_ptr<RdmaDomain>> RdmaResources::gateway_domain(ibv_context* device,
                                                                  PeerIndex peer) {
  std::shared_ptr<RdmaDomain>& domain = gateway_domains_[{device, domain_per_peer_ ? peer : 0}];
  if (domain != nullptr) return domain;
  auto made = regions_.add_domain(device);
  if (made) domain = *made;
  return made;
}

Result<std::shared_ptr<RdmaDomain>> RdmaResources::target_domain(ibv_context* device) {
  std::shared_ptr<RdmaDomain>& domain = target_domains_[device];
  if (domain != nullptr) return domain;
  auto made = RdmaDomain::create(device, 0);
  if (made) domain = *made;
  return made;
}

Result<std::shared_ptr<RegisteredArena>> RdmaResources::arena(ibv_context* device,
                                                              std::uint32_t worker) {
  std::shared_ptr<RegisteredArena>& arena = arenas_[{device, worker}];
  if (arena != nullptr) return arena;
  auto domain = target_domain(device);
  if (!domain) return tl::unexpected(domain.error());
  std::shared_ptr<RegisteredArena> made;
  try {
    made = std::make_shared<RegisteredArena>(arena_bytes_);
  } catch (const std::bad_alloc&) {
    return plain_error("there is no memory for an arena of " + std::to_string(arena_bytes_) +
                       " bytes (rdma.arena_bytes)");
  }
  auto region = RegisteredMemory::create(*domain, made->pages.bytes(), Reach::kLocal);
  if (!region) return tl::unexpected(region.error());
  made->region = std::move(*region);
  arena = std::move(made);
  return arena;
}

}  // namespace kelp
