#include "tools/units.h"

#include <array>
#include <cstdio>
#include <ctime>

namespace kelp {

std::string human_bytes(std::uint64_t bytes) {
  constexpr std::array<const char*, 6> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double scaled = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  // 1023.95 would be printed as "1024.0".
  while (scaled >= 1023.95 && unit + 1 < kUnits.size()) {
    scaled /= 1024;
    ++unit;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", scaled, kUnits[unit]);
  return text;
}

std::string human_duration(std::uint64_t seconds) {
  struct Unit {
    std::uint64_t seconds;
    const char* name;
  };
  constexpr std::array<Unit, 4> kUnits = {{{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}}};
  std::string text;
  for (std::size_t i = 0; i < kUnits.size(); ++i) {
    const std::uint64_t count = seconds / kUnits[i].seconds;
    if (count == 0 && i + 1 < kUnits.size()) continue;
    text = std::to_string(count) + kUnits[i].name;
    if (i + 1 == kUnits.size()) break;
    const std::uint64_t rest = seconds % kUnits[i].seconds / kUnits[i + 1].seconds;
    if (rest != 0) text += " " + std::to_string(rest) + kUnits[i + 1].name;
    break;
  }
  return text;
}

std::string human_time(std::uint64_t unix_seconds) {
  // Year 9999: beyond it is damage, and strftime would not keep to the width.
  constexpr std::uint64_t kLatest = 253402300799;
  if (unix_seconds == 0) return "-";
  if (unix_seconds > kLatest) return std::to_string(unix_seconds) + " s after 1970";
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  ::gmtime_r(&time, &parts);
  char text[48];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

std::string human_ttl(std::uint32_t minutes) {
  if (minutes == 0) return "none";
  if (minutes % 1440 == 0) return std::to_string(minutes / 1440) + " d";
  if (minutes % 60 == 0) return std::to_string(minutes / 60) + " h";
  return std::to_string(minutes) + " min";
}

std::string fixed(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

}  // namespace kelp
