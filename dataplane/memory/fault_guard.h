// Survives clients that take pages out from under the daemon.
//
// Seals stop a client from shrinking its data area, not from punching holes in it; with the
// hugepage pool empty, the daemon's next touch of such a page is a SIGBUS. The handler puts a
// private zero page there and condemns that client; everything else in the process is untouched.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace kelp {

/// While it exists, a SIGBUS inside [base, base + bytes) sets `condemned` instead of killing the
/// process. Registering installs the handler for the process, once.
class FaultGuard {
 public:
  FaultGuard() = default;
  /// `page_bytes`: the mapping's page size. At most 8192 guards exist at once; beyond that a fault
  /// kills, as it would without a guard.
  FaultGuard(std::byte* base, std::size_t bytes, std::size_t page_bytes,
             std::atomic<bool>* condemned) noexcept;
  FaultGuard(FaultGuard&& other) noexcept : slot_(other.slot_) { other.slot_ = kNone; }
  FaultGuard& operator=(FaultGuard&& other) noexcept;
  ~FaultGuard();

 private:
  static constexpr std::uint32_t kNone = UINT32_MAX;
  std::uint32_t slot_ = kNone;
};

}  // namespace kelp
