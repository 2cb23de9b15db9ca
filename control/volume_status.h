// What a volume server says of its volumes: GET /status, and whether that fits what is open here.
// Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "dataplane/volume/attestation.h"
#include "shm_ring/result.h"

namespace kelp {

struct ListedVolume {
  std::string collection;
  std::uint16_t revision = 0;
  std::uint8_t version = 0;
  bool remote = false;                ///< the data is in a remote tier
  std::optional<std::uint32_t> disk;  ///< which of the server's -dir, from 0
};

struct VolumeServerStatus {
  std::string version;    ///< "8000GB 4.48"; for people
  std::size_t disks = 0;  ///< 0: not told
  std::map<VolumeId, ListedVolume> volumes;
};

/// Decodes the JSON of /status. An entry that lacks what is needed is left out: then its volume is
/// not listed. Of two entries of one volume the first -dir counts, as the server reads from that.
/// Errors: not a JSON object with a list of volumes.
/// Source: SeaweedFS weed/server/volume_server_handlers_admin.go, statusHandler;
/// weed/storage/volume_info.go.
Result<VolumeServerStatus> parse_volume_status(std::string_view json);

/// Why the open volume is not the one the server has; "" if it is. `directories`: how many are
/// configured for the server.
/// Not compared are sizes and counts: the server counts differently, and they change meanwhile.
std::string why_not_attested(const AttestedFacts& here, const VolumeServerStatus& status,
                             std::size_t directories);

}  // namespace kelp
