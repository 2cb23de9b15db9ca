// Which volume is meant on a host with several volume servers, and whose it is.
#pragma once

#include <compare>
#include <cstdint>

#include "shm_ring/file_id.h"

namespace kelp {

/// Which of a daemon's `workers` a volume belongs to; libkelp computes the same.
constexpr std::uint32_t owner_of(VolumeId volume, std::uint32_t workers) noexcept {
  return workers <= 1 ? 0 : static_cast<std::uint32_t>(volume) % workers;
}

/// Volume ids are unique within one volume server; two replicas of an id may share a host.
struct VolumeKey {
  /// 0: a directory without a server; else the [[target.volume_server]], counted from 1.
  std::uint32_t server = 0;
  VolumeId id{};

  friend auto operator<=>(const VolumeKey&, const VolumeKey&) = default;
};

}  // namespace kelp
