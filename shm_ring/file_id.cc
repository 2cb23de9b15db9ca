#include "shm_ring/file_id.h"

#include <array>
#include <charconv>
#include <cstddef>
#include <limits>

namespace kelp {
namespace {

constexpr std::size_t kCookieDigits = 8;
constexpr std::size_t kKeyDigitsMax = 24;  // 16 of the needle id, 8 of the cookie

/// All of `text` as one unsigned number, or nothing. from_chars takes no sign, blank, "0x" or "_",
/// as Go's ParseUint with an explicit base does.
template <class Unsigned>
std::optional<Unsigned> parse_unsigned(std::string_view text, int base) noexcept {
  Unsigned value = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, value, base);
  if (error != std::errc{} || stopped != end) return std::nullopt;
  return value;
}

/// One place for both separators: "3" and "01637037d6_2" of "3,01637037d6_2" or "3/01637037d6_2".
std::optional<FileId> join(std::string_view volume_text, std::string_view needle_text) noexcept {
  const auto volume = parse_unsigned<std::uint32_t>(volume_text, 10);
  if (!volume) return std::nullopt;
  const std::optional<NeedleKey> key = parse_needle_path(needle_text);
  if (!key) return std::nullopt;
  return FileId{VolumeId{*volume}, key->needle, key->cookie};
}

/// "3,01637037d6.jpg". First or last comma makes no difference: with two of them either the volume
/// or the needle holds a comma, which no parser takes.
std::optional<FileId> parse_comma_form(std::string_view text) noexcept {
  const std::size_t dot = text.rfind('.');
  // A dot before the comma makes upstream panic; here it stays in the volume and is refused there.
  const std::size_t comma = text.rfind(',');
  if (comma == std::string_view::npos) return std::nullopt;
  const bool has_extension = dot != std::string_view::npos && dot > comma;
  const std::string_view needle =
      has_extension ? text.substr(comma + 1, dot - comma - 1) : text.substr(comma + 1);
  return join(text.substr(0, comma), needle);
}

/// "3/01637037d6.jpg" or "3/01637037d6/name.jpg". With a name the needle keeps its dots, and fails.
std::optional<FileId> parse_slash_form(std::string_view text, std::size_t slash) noexcept {
  const std::string_view rest = text.substr(slash + 1);
  const std::size_t name_slash = rest.find('/');
  if (name_slash == std::string_view::npos) {
    return join(text.substr(0, slash), rest.substr(0, rest.rfind('.')));
  }
  if (rest.find('/', name_slash + 1) != std::string_view::npos) return std::nullopt;
  return join(text.substr(0, slash), rest.substr(0, name_slash));
}

}  // namespace

std::optional<NeedleKey> parse_needle_key(std::string_view text) noexcept {
  if (text.size() <= kCookieDigits || text.size() > kKeyDigitsMax) return std::nullopt;
  const std::size_t split = text.size() - kCookieDigits;
  const auto needle = parse_unsigned<std::uint64_t>(text.substr(0, split), 16);
  const auto cookie = parse_unsigned<std::uint32_t>(text.substr(split), 16);
  if (!needle || !cookie) return std::nullopt;
  return NeedleKey{NeedleId{*needle}, Cookie{*cookie}};
}

std::optional<NeedleKey> parse_needle_path(std::string_view text) noexcept {
  const std::size_t underscore = text.rfind('_');
  if (underscore == std::string_view::npos) return parse_needle_key(text);

  std::optional<NeedleKey> key = parse_needle_key(text.substr(0, underscore));
  const std::string_view delta_text = text.substr(underscore + 1);
  if (!key || delta_text.empty()) return key;  // "01637037d6_" means a delta of 0

  const auto delta = parse_unsigned<std::uint64_t>(delta_text, 10);
  const auto needle = static_cast<std::uint64_t>(key->needle);
  if (!delta || *delta > std::numeric_limits<std::uint64_t>::max() - needle) return std::nullopt;
  key->needle = NeedleId{needle + *delta};
  return key;
}

std::optional<FileId> parse_file_id(std::string_view text) noexcept {
  if (text.starts_with('/')) text.remove_prefix(1);
  const std::size_t slash = text.find('/');
  return slash == std::string_view::npos ? parse_comma_form(text) : parse_slash_form(text, slash);
}

std::string format_file_id(const FileId& id) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  const auto needle = static_cast<std::uint64_t>(id.needle);
  const auto cookie = static_cast<std::uint32_t>(id.cookie);

  std::array<char, kKeyDigitsMax> digits{};
  for (std::size_t i = 0; i < 16; ++i) digits[i] = kDigits[(needle >> (60 - 4 * i)) & 0xf];
  for (std::size_t i = 0; i < 8; ++i) digits[16 + i] = kDigits[(cookie >> (28 - 4 * i)) & 0xf];

  // Whole zero bytes go, never single digits and never the cookie: needle 1 stays "01".
  std::size_t first = 0;
  while (first < 16 && digits[first] == '0' && digits[first + 1] == '0') first += 2;

  std::string text = std::to_string(static_cast<std::uint32_t>(id.volume));
  text += ',';
  text.append(digits.data() + first, digits.size() - first);
  return text;
}

}  // namespace kelp
