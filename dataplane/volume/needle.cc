#include "dataplane/volume/needle.h"

#include <cassert>

#include "dataplane/volume/endian.h"

namespace kelp {
namespace {

constexpr std::size_t kLastModifiedBytes = 5;
constexpr std::size_t kTtlBytes = 2;
constexpr std::size_t kPairsLengthBytes = 2;

/// Walks the optional fields. Each `take` fails only by running past the end.
class MetaCursor {
 public:
  explicit MetaCursor(std::span<const std::byte> rest) noexcept : rest_(rest) {}

  bool at_end() const noexcept { return rest_.empty(); }

  bool take(std::size_t length_bytes, std::span<const std::byte>& field) noexcept {
    if (length_bytes > rest_.size()) return false;
    field = rest_.first(length_bytes);
    rest_ = rest_.subspan(length_bytes);
    return true;
  }

  /// A string behind a length of one or two bytes.
  bool take_text(std::size_t length_field_bytes, std::string_view& text) noexcept {
    std::span<const std::byte> field;
    if (!take(length_field_bytes, field)) return false;
    const std::size_t length_bytes =
        length_field_bytes == 1 ? std::to_integer<std::size_t>(field[0]) : load_be16(field.data());
    if (!take(length_bytes, field)) return false;
    text = {reinterpret_cast<const char*>(field.data()), field.size()};
    return true;
  }

 private:
  std::span<const std::byte> rest_;
};

bool take_last_modified(MetaCursor& cursor, std::uint64_t& seconds) noexcept {
  std::span<const std::byte> field;
  if (!cursor.take(kLastModifiedBytes, field)) return false;
  seconds = std::uint64_t{std::to_integer<std::uint8_t>(field[0])} << 32 | load_be32(&field[1]);
  return true;
}

bool take_ttl(MetaCursor& cursor, Ttl& ttl) noexcept {
  std::span<const std::byte> field;
  if (!cursor.take(kTtlBytes, field)) return false;
  ttl = {.count = std::to_integer<std::uint8_t>(field[0]),
         .unit = std::to_integer<std::uint8_t>(field[1])};
  return true;
}

}  // namespace

NeedleHeader parse_needle_header(std::span<const std::byte, kNeedleHeaderBytes> bytes) noexcept {
  return {.cookie = Cookie{load_be32(&bytes[0])},
          .id = NeedleId{load_be64(&bytes[4])},
          .body_bytes = static_cast<std::int32_t>(load_be32(&bytes[12]))};
}

bool parse_needle_meta(std::span<const std::byte> bytes, NeedleMeta& meta) noexcept {
  meta = {};
  if (bytes.empty()) return true;
  meta.flags = std::to_integer<std::uint8_t>(bytes[0]);

  MetaCursor cursor(bytes.subspan(1));
  const auto next_is = [&](std::uint8_t flag) { return meta.has(flag) && !cursor.at_end(); };
  if (next_is(kFlagHasName) && !cursor.take_text(1, meta.name)) return false;
  if (next_is(kFlagHasMime) && !cursor.take_text(1, meta.mime)) return false;
  if (next_is(kFlagHasLastModified) && !take_last_modified(cursor, meta.last_modified_s)) {
    return false;
  }
  if (next_is(kFlagHasTtl) && !take_ttl(cursor, meta.ttl)) return false;
  return !next_is(kFlagHasPairs) || cursor.take_text(kPairsLengthBytes, meta.pairs);
}

NeedleTail parse_needle_tail(std::span<const std::byte> bytes, std::uint8_t version) noexcept {
  assert(bytes.size() >= tail_bytes(version));
  return {.checksum = load_be32(bytes.data()),
          .append_at_ns = version == 3 ? load_be64(bytes.data() + 4) : 0};
}

bool is_expired(std::uint8_t flags, Ttl ttl, std::uint64_t append_at_ns,
                std::uint64_t now_ns) noexcept {
  constexpr std::uint64_t kNsPerMinute = 60'000'000'000;
  // The longest TTL, 255 years, still fits a signed 64-bit count, so neither side below can wrap.
  static_assert(Ttl{255, 6}.minutes() < std::uint64_t{INT64_MAX} / kNsPerMinute);

  if ((flags & kFlagHasTtl) == 0 || (flags & kFlagHasLastModified) == 0) return false;
  const std::uint64_t lifetime_ns = ttl.minutes() * kNsPerMinute;
  if (lifetime_ns == 0) return false;
  // Upstream reads the time as signed: one with the top bit set lies before 1970, long expired.
  if (append_at_ns > std::uint64_t{INT64_MAX}) return true;
  return now_ns >= append_at_ns + lifetime_ns;
}

}  // namespace kelp
