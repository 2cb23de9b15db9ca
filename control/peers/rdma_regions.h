// Memory that kelpds of other hosts answer into, and the protection domains they do it through: a
// region for each pair. Registering pins pages, and takes about a millisecond for each few
// megabytes.
//
// Belongs to the control thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <span>

#include "dataplane/memory/region_keys.h"
#include "dataplane/transport/verbs/rdma_domain.h"

namespace kelp {

class RdmaRegions final : public MemoryRegistrar {
 public:
  void add(std::span<std::byte> memory, RegionKeys& keys) override;
  void remove(RegionKeys& keys) override;

  /// A domain that others may write through; all memory is registered in it. The error says why
  /// there can be no other one.
  Result<std::shared_ptr<RdmaDomain>> add_domain(ibv_context* device);

  std::uint64_t pinned_bytes() const noexcept { return pinned_bytes_; }

 private:
  struct Memory {
    std::span<std::byte> bytes;
    std::array<RegisteredMemory, RegionKeys::kMostDomains> regions;
  };
  void pin(Memory& memory, RegionKeys& keys, const std::shared_ptr<RdmaDomain>& domain);
  void unpin(Memory& memory, RegionKeys& keys, std::uint32_t domain);

  std::map<RegionKeys*, Memory> memories_;
  std::array<std::shared_ptr<RdmaDomain>, RegionKeys::kMostDomains> domains_;
  std::uint64_t pinned_bytes_ = 0;
};

}  // namespace kelp
