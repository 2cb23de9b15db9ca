// Numbers as people read them. Pure functions, any thread.
#pragma once

#include <cstdint>
#include <string>

namespace kelp {

/// 1536 is "1.5 KiB"; below 1 KiB exact: "700 B".
std::string human_bytes(std::uint64_t bytes);

/// The two largest units: "2 d 3 h", "5 min 1 s", "0 s".
std::string human_duration(std::uint64_t seconds);

/// "2026-01-31 12:00:00 UTC"; "-" for 0, which stands for "not recorded".
std::string human_time(std::uint64_t unix_seconds);

/// A SeaweedFS TTL: the largest unit that divides it, "3 d"; "none" for 0.
std::string human_ttl(std::uint32_t minutes);

/// `value` with so many digits behind the point.
std::string fixed(double value, int digits);

}  // namespace kelp
