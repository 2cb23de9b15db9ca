// File ids of SeaweedFS: "<volume>,<needle hex><cookie hex>" in all its textual forms.
// Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kelp {

enum class VolumeId : std::uint32_t {};
enum class NeedleId : std::uint64_t {};
enum class Cookie : std::uint32_t {};

struct FileId {
  VolumeId volume{};
  NeedleId needle{};
  Cookie cookie{};
  friend bool operator==(const FileId&, const FileId&) = default;
};

struct NeedleKey {
  NeedleId needle{};
  Cookie cookie{};
  friend bool operator==(const NeedleKey&, const NeedleKey&) = default;
};

/// Decodes "<needle hex><cookie hex>": 9 to 24 hex digits, the last 8 are the cookie.
/// Source: SeaweedFS weed/storage/needle/needle.go, ParseNeedleIdCookie.
std::optional<NeedleKey> parse_needle_key(std::string_view text) noexcept;

/// The same with an optional "_delta" (decimal, added to the needle id; overflow is refused).
/// Source: SeaweedFS weed/storage/needle/needle.go, Needle.ParsePath.
std::optional<NeedleKey> parse_needle_path(std::string_view text) noexcept;

/// Decodes a file id in any form a SeaweedFS URL or chunk list holds: "3,01637037d6", with
/// "_delta",
/// "/3,01637037d6.jpg", "3/01637037d6", "/3/01637037d6/name.jpg". A volume above 2^32-1 is refused
/// (upstream truncates it). docs/reads.md says where this is stricter than upstream.
std::optional<FileId> parse_file_id(std::string_view text) noexcept;

/// Canonical text: needle without leading zero bytes, cookie as exactly 8 digits, lower case.
std::string format_file_id(const FileId& id);

}  // namespace kelp
