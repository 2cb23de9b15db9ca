#include "sidecar/http_date.h"

#include <array>
#include <chrono>
#include <cstring>

#include "sidecar/query.h"

namespace kelp::sidecar {
namespace {

namespace chr = std::chrono;

constexpr std::array<const char*, 7> kDays = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
constexpr std::array<const char*, 12> kMonths = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                                 "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

void put_two(char* out, unsigned value) noexcept {
  out[0] = static_cast<char>('0' + value / 10 % 10);
  out[1] = static_cast<char>('0' + value % 10);
}

template <std::size_t N>
std::optional<unsigned> find_word(const std::array<const char*, N>& words, std::string_view text) {
  for (unsigned i = 0; i < N; ++i) {
    if (text == words[i]) return i;
  }
  return std::nullopt;
}

}  // namespace

void write_http_date(std::int64_t unix_s, std::span<char, kHttpDateBytes> out) noexcept {
  const chr::sys_seconds when{chr::seconds(unix_s)};
  const chr::sys_days day = chr::floor<chr::days>(when);
  const chr::year_month_day date(day);
  const chr::hh_mm_ss time(when - day);
  const auto year = static_cast<unsigned>(static_cast<int>(date.year()));
  std::memcpy(out.data(), "Sun, 06 Nov 1994 08:49:37 GMT", kHttpDateBytes);
  std::memcpy(out.data(), kDays[chr::weekday(day).c_encoding()], 3);
  put_two(&out[5], static_cast<unsigned>(date.day()));
  std::memcpy(&out[8], kMonths[static_cast<unsigned>(date.month()) - 1], 3);
  put_two(&out[12], year / 100);
  put_two(&out[14], year % 100);
  put_two(&out[17], static_cast<unsigned>(time.hours().count()));
  put_two(&out[20], static_cast<unsigned>(time.minutes().count()));
  put_two(&out[23], static_cast<unsigned>(time.seconds().count()));
}

std::optional<std::int64_t> parse_http_date(std::string_view text) noexcept {
  if (text.size() != kHttpDateBytes || text.substr(3, 2) != ", " || text[7] != ' ' ||
      text[11] != ' ' || text[16] != ' ' || text[19] != ':' || text[22] != ':' ||
      text.substr(25) != " GMT" || !find_word(kDays, text.substr(0, 3))) {
    return std::nullopt;
  }
  const auto month = find_word(kMonths, text.substr(8, 3));
  const auto day = parse_decimal(text.substr(5, 2));
  const auto year = parse_decimal(text.substr(12, 4));
  const auto hour = parse_decimal(text.substr(17, 2));
  const auto minute = parse_decimal(text.substr(20, 2));
  const auto second = parse_decimal(text.substr(23, 2));
  if (!month || !day || !year || !hour || !minute || !second) return std::nullopt;
  if (*hour > 23 || *minute > 59 || *second > 59) return std::nullopt;
  const chr::year_month_day date{chr::year(static_cast<int>(*year)), chr::month(*month + 1),
                                 chr::day(static_cast<unsigned>(*day))};
  if (!date.ok()) return std::nullopt;
  const auto days = chr::sys_days(date).time_since_epoch().count();
  return static_cast<std::int64_t>(days) * 86400 +
         static_cast<std::int64_t>(*hour * 3600 + *minute * 60 + *second);
}

}  // namespace kelp::sidecar
