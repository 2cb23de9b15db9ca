#include "dataplane/volume/index_row.h"

#include <cassert>

#include "dataplane/volume/endian.h"
#include "dataplane/volume/needle.h"

namespace kelp {

IndexRow parse_index_row(const std::byte* bytes, OffsetWidth width) noexcept {
  assert(width != OffsetWidth::kUnknown);
  std::uint64_t offset_units = load_be32(bytes + 8);
  const std::byte* size = bytes + 12;
  if (width == OffsetWidth::kFive) {
    offset_units |= std::uint64_t{std::to_integer<std::uint8_t>(*size)} << 32;
    ++size;
  }
  return {.id = NeedleId{load_be64(bytes)},
          .offset_bytes = offset_units * kNeedleAlignment,
          .size = static_cast<std::int32_t>(load_be32(size))};
}

}  // namespace kelp
