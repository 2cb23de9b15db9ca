// The Range header as a SeaweedFS volume server understands it. Pure, any thread.
#pragma once

#include <cstdint>
#include <string_view>

namespace kelp::sidecar {

struct ByteRange {
  enum class Kind : std::uint8_t {
    kNone,           ///< the whole: there is no header, or several ranges, which are ignored
    kPart,           ///< answered with 206
    kUnsatisfiable,  ///< answered with 416
  };
  Kind kind = Kind::kNone;
  std::uint64_t begin = 0;  ///< of a part
  std::uint64_t end = 0;    ///< behind its last byte; may be equal to begin
};

/// `header` is the value of Range, "" where there is none; `total` the bytes it is a range of.
/// Source: SeaweedFS 4.48 weed/server/common.go, parseRange (4.44 answers a range that begins right
/// at the end with 206 and nothing). A server there answers several ranges as
/// multipart/byteranges; this one ignores them, as RFC 9110 14.2 allows.
ByteRange parse_byte_range(std::string_view header, std::uint64_t total) noexcept;

}  // namespace kelp::sidecar
