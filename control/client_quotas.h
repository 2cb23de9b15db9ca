// What the programs of one user may hold together, and what they hold.
//
// Control thread only. Taken at attach, given back when the memory is really gone: a client that
// dies and comes back at once does not get twice its share meanwhile.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <map>

#include "shm_ring/result.h"

namespace kelp {

/// Of one uid; 0: no limit but the daemon's own.
struct QuotaLimits {
  std::uint32_t clients = 0;
  std::uint32_t channels = 0;
  std::uint64_t data_bytes = 0;
};

/// What one client takes of its user's quota.
struct QuotaShare {
  std::uint32_t channels = 0;
  std::uint64_t data_bytes = 0;  ///< in whole pages, as made
};

class ClientQuotas {
 public:
  explicit ClientQuotas(QuotaLimits limits) : limits_(limits) {}

  /// Of who comes from now on; nobody is made to give back what they hold.
  void set_limits(QuotaLimits limits) { limits_ = limits; }

  /// Whether one more client of `uid` fits. The error names the quota, what is used, what is asked
  /// for and the limit; nothing is taken yet.
  Result<void> check(uid_t uid, const QuotaShare& share) const;
  void take(uid_t uid, const QuotaShare& share);
  /// What take() took.
  void give_back(uid_t uid, const QuotaShare& share);

  /// Users that hold anything.
  std::size_t users() const noexcept { return held_.size(); }

 private:
  struct Held {
    std::uint64_t clients = 0;
    std::uint64_t channels = 0;
    std::uint64_t data_bytes = 0;
  };

  QuotaLimits limits_;
  std::map<uid_t, Held> held_;
};

}  // namespace kelp
