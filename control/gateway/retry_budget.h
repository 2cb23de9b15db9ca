// Bounds retries to a share of the reads, so that a failing cluster is not asked more than a
// healthy one.
#pragma once

#include <algorithm>

namespace kelp {

class RetryBudget {
 public:
  /// A read begins: it earns a fifth of a retry.
  void earn() noexcept { tokens_ = std::min(tokens_ + kShare, kMost); }
  /// Takes one retry; false: there is none left.
  bool spend() noexcept {
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  static constexpr double kShare = 0.2;
  static constexpr double kMost = 500;
  double tokens_ = kMost;
};

}  // namespace kelp
