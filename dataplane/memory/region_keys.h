// By which keys other hosts' adapters may write to a stretch of our memory: one for each protection
// domain it is registered in. Written by the control thread, read by workers.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace kelp {

class RegionKeys {
 public:
  static constexpr std::uint32_t kMostDomains = 64;

  /// nullopt: it is not registered there.
  std::optional<std::uint32_t> remote_key(std::uint32_t domain) const noexcept {
    // acquire: whoever asks by the key finds the memory registered.
    const std::uint64_t key = keys_[domain].load(std::memory_order_acquire);
    if (key == 0) return std::nullopt;
    return static_cast<std::uint32_t>(key);
  }
  void set(std::uint32_t domain, std::uint32_t remote_key) noexcept {
    keys_[domain].store(kKnown | remote_key, std::memory_order_release);
  }
  /// Requests that carry the key may still be under way.
  void forget(std::uint32_t domain) noexcept { keys_[domain].store(0, std::memory_order_release); }

 private:
  static constexpr std::uint64_t kKnown = std::uint64_t{1} << 32;
  std::array<std::atomic<std::uint64_t>, kMostDomains> keys_{};
};

/// Registers memory wherever other hosts are connected. The control thread's.
class MemoryRegistrar {
 public:
  /// `memory` and `keys` stay where they are until remove(). It may turn out that `memory` cannot
  /// be registered: then nothing is written into it by adapters.
  virtual void add(std::span<std::byte> memory, RegionKeys& keys) = 0;
  /// Nothing that carries a key of it is under way any more.
  virtual void remove(RegionKeys& keys) = 0;

 protected:
  ~MemoryRegistrar() = default;
};

}  // namespace kelp
