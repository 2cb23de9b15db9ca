// A protection domain, and memory registered in it: what the other side of a connection can reach.
//
// The control thread's, after privileges have been dropped. Domains must outlive what is made in
// them, which shared_ptrs see to.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "shm_ring/result.h"

namespace kelp {

struct RdmaDomain {
  /// `index`: of RegionKeys, of one that others may write to.
  static Result<std::shared_ptr<RdmaDomain>> create(ibv_context* device, std::uint32_t index);
  ~RdmaDomain();
  RdmaDomain(const RdmaDomain&) = delete;
  RdmaDomain& operator=(const RdmaDomain&) = delete;

  ibv_context* const device;
  const std::uint32_t index;
  ibv_pd* const pd;

 private:
  RdmaDomain(ibv_context* of, std::uint32_t number, ibv_pd* made)
      : device(of), index(number), pd(made) {}
};

enum class Reach : std::uint8_t {
  kLocal,        ///< only our own adapter reads and writes it, as we post
  kRemoteWrite,  ///< the other side may write to it. Never read
};

/// Its pages are pinned while it exists.
class RegisteredMemory {
 public:
  /// The error says how much memory may be locked, and how much is, where that is the obstacle.
  static Result<RegisteredMemory> create(std::shared_ptr<RdmaDomain> domain,
                                         std::span<std::byte> memory, Reach reach);
  RegisteredMemory() = default;

  std::uint32_t local_key() const noexcept { return region_->lkey; }
  std::uint32_t remote_key() const noexcept { return region_->rkey; }
  explicit operator bool() const noexcept { return region_ != nullptr; }

 private:
  struct Deregister {
    void operator()(ibv_mr* region) const noexcept { ::ibv_dereg_mr(region); }
  };
  std::shared_ptr<RdmaDomain> domain_;
  std::unique_ptr<ibv_mr, Deregister> region_;
};

/// A sentence on what pinning `bytes` more needs, from RLIMIT_MEMLOCK and what is locked already.
std::string lock_limits(std::uint64_t bytes);

}  // namespace kelp
