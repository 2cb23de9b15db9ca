#include "dataplane/volume/record_check.h"

#include <ctime>

#include "dataplane/volume/endian.h"

namespace kelp {

kelp_status check_prefix(const ExpectedRecord& expected, std::span<const std::byte> prefix,
                         RecordShape& shape) noexcept {
  const NeedleHeader header = parse_needle_header(prefix.first<kNeedleHeaderBytes>());
  // Upstream compares only size and cookie; rows can outlive their records, and needles of one
  // batch assignment share a cookie, so the id is what tells neighbours apart.
  if (header.id != expected.needle || header.body_bytes != expected.location.body_bytes) {
    return KELP_CORRUPT;
  }
  // An empty needle stored while a vacuum ran loses its cookie: the catch-up takes it for a deleted
  // one and writes a makeup record. There is nothing left to compare, and no byte to protect.
  const bool lost_cookie = header.body_bytes == 0 && header.cookie == kMakeupCookie;
  if (header.cookie != expected.cookie && !lost_cookie) return KELP_WRONG_COOKIE;

  shape = {};
  shape.data_offset_bytes = expected.prefix_bytes();
  if (!expected.has_data_length()) {
    shape.data_bytes = expected.body_bytes();
    return KELP_OK;
  }
  shape.data_bytes = load_be32(prefix.data() + kNeedleHeaderBytes);
  // A body is the data length, the data and at least the flags.
  if (shape.data_bytes + kDataLengthBytes + 1 > expected.body_bytes()) return KELP_CORRUPT;
  shape.meta_bytes = expected.body_bytes() - kDataLengthBytes - shape.data_bytes;
  return KELP_OK;
}

kelp_status check_suffix(const ExpectedRecord& expected, std::span<const std::byte> meta,
                         std::span<const std::byte> tail, bool stat, NeedleMeta& parsed,
                         NeedleTail& parsed_tail) noexcept {
  parsed = {};
  if (!meta.empty() && !parse_needle_meta(meta, parsed)) return KELP_CORRUPT;
  parsed_tail = parse_needle_tail(tail, expected.version);
  if (parsed.has(kFlagHasTtl) &&
      is_expired(parsed.flags, parsed.ttl, parsed_tail.append_at_ns, wall_clock_ns())) {
    return KELP_EXPIRED;
  }
  if (parsed.has(kFlagChunkManifest) && !stat) return KELP_USE_HTTP;
  return KELP_OK;
}

std::uint64_t wall_clock_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace kelp
