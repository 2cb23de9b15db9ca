#include "tools/bench/hdr_log.h"

#include <zlib.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string_view>

namespace kelp::bench {
namespace {

constexpr std::uint32_t kCookieV2 = 0x1c849303 | 0x10;
constexpr std::uint32_t kCompressedCookieV2 = 0x1c849304 | 0x10;
/// Histogram's buckets are those of an HdrHistogram with these parameters.
constexpr std::uint32_t kSignificantDigits = 2;
constexpr std::uint64_t kLowest = 1;
constexpr std::uint64_t kHighest = (1ULL << 42) - 1;

/// Big-endian.
template <class Number>
void append(std::string& bytes, Number number) {
  for (int shift = static_cast<int>(sizeof number) * 8 - 8; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<char>(number >> shift & 0xff));
  }
}

/// LEB128 with 9 bytes at most (the last one has 8 bits) of the ZigZag-encoded number.
void append_zigzag(std::string& bytes, std::int64_t number) {
  auto rest = (static_cast<std::uint64_t>(number) << 1) ^ static_cast<std::uint64_t>(number >> 63);
  for (int i = 0; i < 8 && rest >= 0x80; ++i, rest >>= 7) {
    bytes.push_back(static_cast<char>((rest & 0x7f) | 0x80));
  }
  bytes.push_back(static_cast<char>(rest));
}

/// The counts up to the last that is not 0; a run of zeroes is its negative length.
std::string counts_of(const Histogram& histogram) {
  std::string bytes;
  std::int64_t zeroes = 0;
  for (std::size_t i = 0; i < Histogram::kBuckets; ++i) {
    const std::uint64_t count = histogram.count_in(i);
    if (count == 0) {
      ++zeroes;
      continue;
    }
    if (zeroes != 0) append_zigzag(bytes, zeroes == 1 ? 0 : -zeroes);
    zeroes = 0;
    append_zigzag(bytes, static_cast<std::int64_t>(count));
  }
  return bytes;
}

std::string encoded(const Histogram& histogram) {
  const std::string counts = counts_of(histogram);
  std::string bytes;
  append(bytes, kCookieV2);
  append(bytes, static_cast<std::uint32_t>(counts.size()));
  append(bytes, std::uint32_t{0});  // normalizing index offset
  append(bytes, kSignificantDigits);
  append(bytes, kLowest);
  append(bytes, kHighest);
  append(bytes, std::bit_cast<std::uint64_t>(1.0));  // integer to double conversion ratio
  return bytes + counts;
}

std::string compressed(const std::string& plain) {
  uLongf length = ::compressBound(static_cast<uLong>(plain.size()));
  std::string body(length, '\0');
  // Fails only for a buffer that is too small, and compressBound() says what is not.
  ::compress(reinterpret_cast<Bytef*>(body.data()), &length,
             reinterpret_cast<const Bytef*>(plain.data()), static_cast<uLong>(plain.size()));
  std::string bytes;
  append(bytes, kCompressedCookieV2);
  append(bytes, static_cast<std::uint32_t>(length));
  return bytes + body.substr(0, length);
}

std::string base64(std::string_view bytes) {
  static constexpr char kDigits[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t count = std::min<std::size_t>(3, bytes.size() - i);
    std::uint32_t group = 0;
    for (std::size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < count ? static_cast<unsigned char>(bytes[i + j]) : 0u);
    }
    for (std::size_t j = 0; j < 4; ++j) {
      text.push_back(j <= count ? kDigits[group >> (18 - 6 * j) & 63] : '=');
    }
  }
  return text;
}

}  // namespace

std::string hdr_log_head(double start_unix_s) {
  const auto seconds = static_cast<std::time_t>(start_unix_s);
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  char date[64], line[160];
  std::strftime(date, sizeof date, "%a %b %d %H:%M:%S UTC %Y", &utc);
  std::snprintf(line, sizeof line, "#[StartTime: %.3f (seconds since epoch), %s]\n", start_unix_s,
                date);
  return std::string("#[Logged by kelp-bench; values are nanoseconds]\n") +
         "#[Histogram log format version 1.3]\n" + line +
         "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\","
         "\"Interval_Compressed_Histogram\"\n";
}

std::string hdr_log_line(const std::string& tag, double start_s, double length_s,
                         const Histogram& histogram) {
  char numbers[96];
  std::snprintf(numbers, sizeof numbers, ",%.3f,%.3f,%.3f,", start_s, length_s,
                static_cast<double>(histogram.max()) / 1e6);
  return "Tag=" + tag + numbers + base64(compressed(encoded(histogram))) + "\n";
}

}  // namespace kelp::bench
