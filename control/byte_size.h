// Byte sizes as people write them: "64MiB". Pure functions, any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kelp {

/// "65536", "64KiB", "1 GiB": digits, at most one space, then B, KiB, MiB, GiB, TiB or nothing.
/// KB and MB are refused, since half the world means 1000 by them. Empty if it does not fit 64
/// bits.
std::optional<std::uint64_t> parse_byte_size(std::string_view text) noexcept;

/// The shortest exact form: 65536 is "64 KiB", 1000 is "1000 B".
std::string format_byte_size(std::uint64_t bytes);

}  // namespace kelp
