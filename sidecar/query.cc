#include "sidecar/query.h"

#include <algorithm>
#include <charconv>

namespace kelp::sidecar {
namespace {

int hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// In place; what it decodes to is never longer. Nothing: "%" without two hex digits, or a NUL.
std::optional<std::string_view> decode(std::span<char> text, bool plus_is_space) noexcept {
  std::size_t to = 0;
  for (std::size_t from = 0; from < text.size(); ++from) {
    char c = text[from];
    if (c == '%') {
      if (text.size() - from < 3) return std::nullopt;
      const int high = hex_digit(text[from + 1]);
      const int low = hex_digit(text[from + 2]);
      if (high < 0 || low < 0) return std::nullopt;
      c = static_cast<char>(high * 16 + low);
      from += 2;
    } else if (c == '+' && plus_is_space) {
      c = ' ';
    }
    if (c == '\0') return std::nullopt;
    text[to++] = c;
  }
  return std::string_view(text.data(), to);
}

std::size_t position_of(std::span<char> text, char wanted) noexcept {
  const std::size_t found = std::string_view(text.data(), text.size()).find(wanted);
  return found == std::string_view::npos ? text.size() : found;
}

/// What stands behind the scheme and the authority of an absolute URI.
std::optional<std::span<char>> without_authority(std::span<char> target) noexcept {
  if (!target.empty() && target[0] == '/') return target;
  constexpr std::string_view kScheme = "http://";
  if (!std::string_view(target.data(), target.size()).starts_with(kScheme)) return std::nullopt;
  const std::span<char> rest = target.subspan(kScheme.size());
  const std::size_t slash = position_of(rest, '/');
  if (slash == 0 || slash == rest.size()) return std::nullopt;
  return rest.subspan(slash);
}

std::optional<std::uint64_t> parse_digits(std::string_view text, int base) noexcept {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, number, base);
  if (failed != std::errc{} || rest != end) return std::nullopt;
  return number;
}

}  // namespace

std::optional<Query> Query::parse(std::span<char> target, const char*& problem) noexcept {
  const auto refuse = [&](const char* why) -> std::optional<Query> {
    problem = why;
    return std::nullopt;
  };
  constexpr const char* kBadEscape = "a % in the URL is not followed by two hex digits, or by 00";
  const std::optional<std::span<char>> whole = without_authority(target);
  if (!whole) return refuse("the target of a request is a path that begins with /");
  Query query;
  const std::size_t mark = position_of(*whole, '?');
  const std::optional<std::string_view> path = decode(whole->first(mark), false);
  if (!path) return refuse(kBadEscape);
  query.path_ = *path;
  std::span<char> rest = mark == whole->size() ? std::span<char>() : whole->subspan(mark + 1);
  while (!rest.empty()) {
    const std::size_t end = position_of(rest, '&');
    const std::span<char> pair = rest.first(end);
    rest = end == rest.size() ? std::span<char>() : rest.subspan(end + 1);
    if (pair.empty()) continue;
    if (query.count_ == kMostParameters) return refuse("there are more than 32 parameters");
    const std::size_t equals = position_of(pair, '=');
    const std::optional<std::string_view> name = decode(pair.first(equals), true);
    const std::optional<std::string_view> value =
        decode(equals == pair.size() ? std::span<char>() : pair.subspan(equals + 1), true);
    if (!name || !value) return refuse(kBadEscape);
    query.parameters_[query.count_++] = {*name, *value};
  }
  return query;
}

std::optional<std::string_view> Query::find(std::string_view name) const noexcept {
  for (const Parameter& parameter : parameters()) {
    if (parameter.name == name) return parameter.value;
  }
  return std::nullopt;
}

std::string_view Query::repeated(std::span<const std::string_view> known) const noexcept {
  for (const std::string_view name : known) {
    const auto count = std::ranges::count(parameters(), name, &Parameter::name);
    if (count > 1) return name;
  }
  return {};
}

std::optional<std::uint64_t> parse_decimal(std::string_view text) noexcept {
  return parse_digits(text, 10);
}

std::optional<std::uint64_t> parse_number(std::string_view text) noexcept {
  if (text.starts_with("0x") || text.starts_with("0X")) return parse_digits(text.substr(2), 16);
  return parse_digits(text, 10);
}

}  // namespace kelp::sidecar
