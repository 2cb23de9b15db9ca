#include "dataplane/volume/super_block.h"

#include "dataplane/volume/endian.h"

namespace kelp {

std::optional<SuperBlock> parse_super_block(
    std::span<const std::byte, kSuperBlockBytes> bytes) noexcept {
  const auto version = std::to_integer<std::uint8_t>(bytes[0]);
  if (version < 1 || version > 3) return std::nullopt;
  return SuperBlock{
      .version = version,
      .replica_placement = std::to_integer<std::uint8_t>(bytes[1]),
      .ttl = {.count = std::to_integer<std::uint8_t>(bytes[2]),
              .unit = std::to_integer<std::uint8_t>(bytes[3])},
      .compaction_revision = load_be16(&bytes[4]),
      .extra_bytes = load_be16(&bytes[6]),
  };
}

}  // namespace kelp
