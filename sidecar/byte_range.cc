#include "sidecar/byte_range.h"

#include <algorithm>
#include <optional>

#include "sidecar/query.h"

namespace kelp::sidecar {
namespace {

std::string_view trim(std::string_view text) noexcept {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

constexpr ByteRange kUnsatisfiable{ByteRange::Kind::kUnsatisfiable, 0, 0};

}  // namespace

ByteRange parse_byte_range(std::string_view header, std::uint64_t total) noexcept {
  constexpr std::string_view kUnit = "bytes=";
  if (header.empty()) return {};
  if (!header.starts_with(kUnit)) return kUnsatisfiable;
  const std::string_view text = trim(header.substr(kUnit.size()));
  if (text.empty() || text.find(',') != std::string_view::npos) return {};
  const std::size_t dash = text.find('-');
  if (dash == std::string_view::npos) return kUnsatisfiable;
  const std::string_view first = trim(text.substr(0, dash));
  const std::string_view last = trim(text.substr(dash + 1));
  if (first.empty()) {
    const std::optional<std::uint64_t> suffix = parse_decimal(last);
    if (!suffix) return kUnsatisfiable;
    return {ByteRange::Kind::kPart, total - std::min(*suffix, total), total};
  }
  const std::optional<std::uint64_t> begin = parse_decimal(first);
  if (!begin || *begin >= total) return kUnsatisfiable;
  if (last.empty()) return {ByteRange::Kind::kPart, *begin, total};
  const std::optional<std::uint64_t> end = parse_decimal(last);
  if (!end || *end < *begin) return kUnsatisfiable;
  return {ByteRange::Kind::kPart, *begin, *end >= total ? total : *end + 1};
}

}  // namespace kelp::sidecar
