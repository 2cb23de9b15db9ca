#include "control/peers/rdma_regions.h"

#include <algorithm>

#include "control/log.h"
#include "control/log_limiter.h"

namespace kelp {

void RdmaRegions::add(std::span<std::byte> memory, RegionKeys& keys) {
  Memory& added = memories_[&keys];
  added.bytes = memory;
  for (const auto& domain : domains_) {
    if (domain != nullptr) pin(added, keys, domain);
  }
}

void RdmaRegions::remove(RegionKeys& keys) {
  const auto found = memories_.find(&keys);
  if (found == memories_.end()) return;
  for (const auto& domain : domains_) {
    if (domain != nullptr) unpin(found->second, keys, domain->index);
  }
  memories_.erase(found);
}

Result<std::shared_ptr<RdmaDomain>> RdmaRegions::add_domain(ibv_context* device) {
  const auto place = std::ranges::find(domains_, nullptr);
  if (place == domains_.end()) {
    return plain_error("there are " + std::to_string(domains_.size()) +
                       " protection domains already");
  }
  auto made = RdmaDomain::create(device, static_cast<std::uint32_t>(place - domains_.begin()));
  if (!made) return made;
  *place = *made;
  for (auto& [keys, memory] : memories_) pin(memory, *keys, *place);
  return made;
}

void RdmaRegions::pin(Memory& memory, RegionKeys& keys, const std::shared_ptr<RdmaDomain>& domain) {
  auto region = RegisteredMemory::create(domain, memory.bytes, Reach::kRemoteWrite);
  if (!region) {
    static LogLimiter limiter("memory cannot be registered", LogLevel::kWarning);
    if (limiter.allow()) {
      log_warning("a program's memory cannot be registered; its reads go by TCP or HTTP",
                  {{"reason", region.error().what}});
    }
    return;
  }
  memory.regions[domain->index] = std::move(*region);
  pinned_bytes_ += memory.bytes.size();
  keys.set(domain->index, memory.regions[domain->index].remote_key());
}

void RdmaRegions::unpin(Memory& memory, RegionKeys& keys, std::uint32_t domain) {
  keys.forget(domain);
  if (!memory.regions[domain]) return;
  memory.regions[domain] = {};
  pinned_bytes_ -= memory.bytes.size();
}

}  // namespace kelp
