#include "control/byte_size.h"

#include <array>
#include <charconv>

namespace kelp {
namespace {

constexpr std::array<std::string_view, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};

/// Exponent of 1024, or nothing for a unit we do not know.
std::optional<unsigned> unit_power(std::string_view unit) noexcept {
  if (unit.empty()) return 0;
  for (unsigned power = 0; power < kUnits.size(); ++power) {
    if (unit == kUnits[power]) return power;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> parse_byte_size(std::string_view text) noexcept {
  std::uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, number);
  if (failed != std::errc{}) return std::nullopt;
  std::string_view unit(rest, static_cast<std::size_t>(end - rest));
  if (unit.size() > 1 && unit.front() == ' ') unit.remove_prefix(1);
  const std::optional<unsigned> power = unit_power(unit);
  if (!power || number > (UINT64_MAX >> (10 * *power))) return std::nullopt;
  return number << (10 * *power);
}

std::string format_byte_size(std::uint64_t bytes) {
  unsigned power = 0;
  while (bytes != 0 && bytes % 1024 == 0 && power + 1 < kUnits.size()) {
    bytes /= 1024;
    ++power;
  }
  return std::to_string(bytes) + " " + std::string(kUnits[power]);
}

}  // namespace kelp
