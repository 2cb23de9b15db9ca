// A needle record in a .dat file: header, body, checksum, append time, padding.
//
//   | cookie u32 | id u64 | size i32 | data length u32 | data | flags u8 | optional fields |
//   | checksum u32 | append time u64 (version 3) | 1 to 8 bytes of garbage |
//
// `size` counts the body: from the data length up to the last optional field. Empty data leaves the
// whole body out, and in version 1 the body is the data and nothing else.
// Pure functions over bytes the caller holds; any thread; nothing here allocates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "dataplane/volume/ttl.h"
#include "shm_ring/file_id.h"

namespace kelp {

inline constexpr std::size_t kNeedleHeaderBytes = 16;
inline constexpr std::uint64_t kNeedleAlignment = 8;  ///< records start at multiples of this
inline constexpr std::size_t kDataLengthBytes = 4;    ///< before the data; not in version 1
inline constexpr std::size_t kNeedleTailBytesMax = 12;

inline constexpr std::uint8_t kFlagCompressed = 0x01;  ///< data is gzip, or claims to be
inline constexpr std::uint8_t kFlagHasName = 0x02;
inline constexpr std::uint8_t kFlagHasMime = 0x04;
inline constexpr std::uint8_t kFlagHasLastModified = 0x08;
inline constexpr std::uint8_t kFlagHasTtl = 0x10;
inline constexpr std::uint8_t kFlagHasPairs = 0x20;
inline constexpr std::uint8_t kFlagChunkManifest = 0x80;

struct NeedleHeader {
  Cookie cookie{};
  NeedleId id{};
  std::int32_t body_bytes = 0;  ///< as stored: the record may be damaged, so it may be negative
};

/// Decodes the header that starts every needle in a .dat file.
/// Shape: big-endian cookie u32 | needle id u64 | body size i32, 16 bytes in all.
/// Cannot fail: the extent is in the type. The caller judges cookie, id and body_bytes.
/// Source: SeaweedFS weed/storage/needle/needle_read.go, ParseNeedleHeader.
NeedleHeader parse_needle_header(std::span<const std::byte, kNeedleHeaderBytes> bytes) noexcept;

/// Bytes of checksum and, in version 3, append time.
constexpr std::uint32_t tail_bytes(std::uint8_t version) noexcept {
  return version == 3 ? 12 : 4;
}

/// 1 to 8, never 0: an aligned record is padded by 8 more bytes. The padding is garbage.
/// `body_bytes` is not negative (a tombstone's row says -1, its record says 0).
/// Source: SeaweedFS weed/storage/needle/needle_read_tail.go.
constexpr std::uint32_t padding_bytes(std::int32_t body_bytes, std::uint8_t version) noexcept {
  const std::uint64_t used =
      kNeedleHeaderBytes + static_cast<std::uint32_t>(body_bytes) + tail_bytes(version);
  return static_cast<std::uint32_t>(kNeedleAlignment - used % kNeedleAlignment);
}

/// The whole record, header to padding: a multiple of 8. `body_bytes` is not negative.
constexpr std::uint64_t record_bytes(std::int32_t body_bytes, std::uint8_t version) noexcept {
  return std::uint64_t{kNeedleHeaderBytes} + static_cast<std::uint32_t>(body_bytes) +
         tail_bytes(version) + padding_bytes(body_bytes, version);
}

/// What a needle says about its data. The views point into the bytes it was parsed from.
struct NeedleMeta {
  std::uint8_t flags = 0;
  std::string_view name;
  std::string_view mime;
  std::string_view pairs;             ///< a JSON object of strings, not parsed here
  std::uint64_t last_modified_s = 0;  ///< Unix seconds, 40 bits
  Ttl ttl;

  constexpr bool has(std::uint8_t flag) const noexcept { return (flags & flag) != 0; }
};

/// Decodes what follows the data up to the end of the body (versions 2 and 3).
/// Shape: flags u8, then in this order, each if its flag is set and the body goes on: name u8+n,
/// MIME u8+n, last modified 5 bytes, TTL 2 bytes, pairs u16+n.
/// False: a length runs past the body, the record is damaged; `meta` is then unspecified. A body
/// that ends early is fine, as it is upstream: what is missing keeps its default and its flag.
/// No bytes at all are no flags. Bytes after the last field are ignored.
/// Source: SeaweedFS weed/storage/needle/needle_read.go, readNeedleDataVersion2NonData.
bool parse_needle_meta(std::span<const std::byte> bytes, NeedleMeta& meta) noexcept;

struct NeedleTail {
  std::uint32_t checksum = 0;      ///< of the stored data, raw or masked: see stored_checksum.h
  std::uint64_t append_at_ns = 0;  ///< Unix nanoseconds; 0 in versions 1 and 2
};

/// Decodes what follows the body; `bytes` holds at least tail_bytes(version).
/// Source: SeaweedFS weed/storage/needle/needle_read_tail.go.
NeedleTail parse_needle_tail(std::span<const std::byte> bytes, std::uint8_t version) noexcept;

/// Whether a stock server answers 404 because the needle's own TTL ran out.
/// It counts from the append time, not from last-modified, yet asks for the last-modified flag; so
/// on versions 1 and 2, which have no append time, every needle with a TTL has expired.
/// Erasure-coded volumes do not apply this rule.
/// Source: SeaweedFS weed/storage/volume_read.go, readNeedle.
bool is_expired(std::uint8_t flags, Ttl ttl, std::uint64_t append_at_ns,
                std::uint64_t now_ns) noexcept;

}  // namespace kelp
