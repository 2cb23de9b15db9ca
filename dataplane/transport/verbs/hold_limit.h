// How long a send may wait for others to share its doorbell: a part of what a request takes anyway.
#pragma once

#include <algorithm>

#include "shm_ring/ticks.h"

namespace kelp {

class HoldLimit {
 public:
  /// A request that was begun then has just ended.
  void ended(Ticks begun) noexcept {
    const Ticks took = ticks_now() - begun;
    // An exponential mean of about the last 16.
    typical_ += took / 16 - typical_ / 16;
  }
  Ticks ticks() const noexcept { return std::max(least_, typical_ / 4); }

 private:
  static constexpr std::uint64_t kLeastUs = 50;
  const Ticks least_ = TickRate::instance().from_us(kLeastUs);
  Ticks typical_ = 0;
};

}  // namespace kelp
