// The .vif file beside a volume: what its server noted about it, as JSON.
// Set-up code, any thread; it allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "dataplane/volume/index_row.h"
#include "shm_ring/result.h"

namespace kelp {

/// A .vif is a few hundred bytes; remote tiers add some. Longer text is not one.
inline constexpr std::size_t kVifBytesMax = std::size_t{1} << 20;

/// How an erasure-coded volume is cut into shards. All 0: not said, so 10 + 4 and the layout of
/// large and small blocks from before version 4.45.
struct EcShardConfig {
  std::uint32_t data_shards = 0;
  std::uint32_t parity_shards = 0;
  std::uint64_t block_bytes = 0;  ///< 4.45 and later: one block size for the whole volume

  friend bool operator==(const EcShardConfig&, const EcShardConfig&) = default;
};

/// Fields the file leaves out keep these values.
struct VolumeInfo {
  bool tiered = false;        ///< the data lives in a remote tier: not ours to read
  std::uint32_t version = 0;  ///< of needles; the .dat's super block wins where there is one
  std::string replication;    ///< "001"; overrides the super block's for reporting
  OffsetWidth bytes_offset = OffsetWidth::kUnknown;  ///< a claim: see offset_width.h
  std::uint64_t dat_file_bytes = 0;                  ///< EC: length of the .dat when encoded
  bool read_only = false;
  EcShardConfig ec;
  std::uint64_t expire_at_s = 0;  ///< EC: Unix seconds; written but meaningless elsewhere

  friend bool operator==(const VolumeInfo&, const VolumeInfo&) = default;
};

/// Decodes the text of a .vif.
/// Shape: a JSON object. Names in camelCase, snake_case or the legacy spelling (BytesOffset,
/// DestroyTime); integers as numbers or as strings of digits; null is the default.
/// Empty text is "no info": the server rewrites the file in place, so it may be empty for a moment.
///
/// An error means that the volume is not to be read from its files, and is answered for:
/// - text that is not one JSON object (cut, or with something after it), is too long or too deep;
/// - a field this reader knows with a value of the wrong type or range;
/// - a field given twice, in one spelling or in two;
/// - a field of ecShardConfig this reader does not know: one of those (blockSize) has already
///   changed where bytes lie. Other unknown fields are ignored; they have only ever described.
/// Source: SeaweedFS weed/storage/volume_info/volume_info.go, weed/pb/volume_server.proto.
Result<VolumeInfo> parse_vif(std::string_view text);

/// The file's text, at most one byte more than parse_vif() takes; empty when there is no such file.
/// It is rewritten in place, so it may be cut. One that is there and cannot be read is an error: it
/// may say that the data lives elsewhere.
Result<std::string> read_vif(const std::string& path);

}  // namespace kelp
