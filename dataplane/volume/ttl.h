// The time to live of a needle or a volume, as two bytes on disk.
// A plain value, any thread.
#pragma once

#include <cstdint>

namespace kelp {

/// Shape: count u8 | unit u8. Units: 0 none, 1 minute, 2 hour, 3 day, 4 week, 5 month of 30 days,
/// 6 year of 365 days.
/// Source: SeaweedFS weed/storage/needle/volume_ttl.go.
struct Ttl {
  std::uint8_t count = 0;
  std::uint8_t unit = 0;

  /// 0 means "lives for ever": no count, no unit, or a unit upstream does not know either.
  constexpr std::uint32_t minutes() const noexcept {
    constexpr std::uint32_t kHour = 60;
    constexpr std::uint32_t kDay = 24 * kHour;
    constexpr std::uint32_t kMinutesOfUnit[] = {0, 1, kHour, kDay, 7 * kDay, 30 * kDay, 365 * kDay};
    if (unit >= sizeof kMinutesOfUnit / sizeof kMinutesOfUnit[0]) return 0;
    return count * kMinutesOfUnit[unit];
  }

  friend bool operator==(const Ttl&, const Ttl&) = default;
};

}  // namespace kelp
