// Dates as HTTP writes them: "Sun, 06 Nov 1994 08:49:37 GMT". Pure, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kelp::sidecar {

constexpr std::size_t kHttpDateBytes = 29;

/// Of Unix seconds. Exactly kHttpDateBytes, no terminator.
void write_http_date(std::int64_t unix_s, std::span<char, kHttpDateBytes> out) noexcept;

/// Exactly that form, as Go's time.Parse(http.TimeFormat) takes it; nothing else.
std::optional<std::int64_t> parse_http_date(std::string_view text) noexcept;

}  // namespace kelp::sidecar
