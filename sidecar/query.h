// The target of a request, "/read?file_id=3%2C01637037d6&offset=0", as path and parameters.
// Pure functions, any thread. Nothing is allocated: names and values are decoded where they lie.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kelp::sidecar {

/// Views into the buffer that was parsed.
class Query {
 public:
  static constexpr std::size_t kMostParameters = 32;

  struct Parameter {
    std::string_view name;
    std::string_view value;
  };

  /// Takes "/path?name=value&...", or the same after "http://host". Decodes "%XX" in path, names
  /// and values, and "+" as a space in names and values, as Go does. Nothing: it is not one, and
  /// `problem` is a sentence that says why.
  static std::optional<Query> parse(std::span<char> target, const char*& problem) noexcept;

  std::string_view path() const noexcept { return path_; }
  std::span<const Parameter> parameters() const noexcept { return {parameters_.data(), count_}; }

  /// Nothing: there is none of that name. Of a name given twice, the first; see repeated().
  std::optional<std::string_view> find(std::string_view name) const noexcept;

  /// One of `known` names that is given more than once; "" if there is none.
  std::string_view repeated(std::span<const std::string_view> known) const noexcept;

 private:
  std::string_view path_;
  std::array<Parameter, kMostParameters> parameters_{};
  std::size_t count_ = 0;
};

/// A whole number in decimal digits and nothing else.
std::optional<std::uint64_t> parse_decimal(std::string_view text) noexcept;

/// The same, or "0x" and hexadecimal digits.
std::optional<std::uint64_t> parse_number(std::string_view text) noexcept;

}  // namespace kelp::sidecar
