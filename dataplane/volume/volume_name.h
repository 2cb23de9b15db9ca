// Names of volume files: "7.dat", "shells_6.idx", "a_b_12.ec00".
// Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "shm_ring/file_id.h"

namespace kelp {

struct VolumeName {
  std::string collection;  ///< "" for the default collection; may hold '_' and '.'
  VolumeId id{};
  std::string_view extension;  ///< with its dot; points into the parsed name
};

/// Decodes a directory entry's name. Nothing: it is no volume's file, which staging files such as
/// "7.dat.copying" are not either. Which extensions matter is for the caller to say.
/// Shape: [collection '_'] volume extension, split at the last '.' and then at the last '_'; the
/// volume is decimal without leading zeros.
/// Source: SeaweedFS weed/storage/disk_location.go, parseCollectionVolumeId.
std::optional<VolumeName> parse_volume_name(std::string_view entry_name);

/// "7" or "shells_6": what all files of a volume start with.
/// Source: SeaweedFS weed/storage/volume.go, VolumeFileName.
std::string volume_base_name(std::string_view collection, VolumeId id);

}  // namespace kelp
