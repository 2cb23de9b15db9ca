// A number with one writer that anyone may read meanwhile.
#pragma once

#include <atomic>
#include <cstdint>

namespace kelp {

class Counter {
 public:
  void add(std::uint64_t amount = 1) noexcept {
    // relaxed load + store instead of an atomic add: only one thread writes; orders nothing.
    value_.store(value_.load(std::memory_order_relaxed) + amount, std::memory_order_relaxed);
  }
  std::uint64_t value() const noexcept { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace kelp
