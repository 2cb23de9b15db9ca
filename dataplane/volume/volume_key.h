// Which volume is meant on a host with several volume servers.
#pragma once

#include <compare>
#include <cstdint>

#include "shm_ring/file_id.h"

namespace kelp {

/// Volume ids are unique within one volume server; two replicas of an id may share a host.
struct VolumeKey {
  /// 0: a directory without a server; else the [[target.volume_server]], counted from 1.
  std::uint32_t server = 0;
  VolumeId id{};

  friend auto operator<=>(const VolumeKey&, const VolumeKey&) = default;
};

}  // namespace kelp
