#include "dataplane/volume/offset_width.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

namespace kelp {
namespace {

struct Score {
  int points = 0;
  bool any_match = false;
};

/// Rows that read the same, or mean nothing, under either width.
bool says_nothing(const IndexRow& row, std::size_t row_index) {
  if (row.offset_bytes == 0 && row.size < 0) return true;
  return row_index == 0 && row.size == 0;
}

bool fits(const IndexRow& row, const NeedleHeader& header) {
  const std::int32_t expected_bytes = row.size == -1 ? 0 : row.size;
  return header.id == row.id && header.body_bytes == expected_bytes && expected_bytes >= 0;
}

Score score_rows(std::span<const std::byte> index_start, OffsetWidth width,
                 const HeaderReader& read_header) {
  const std::size_t rows = std::min(index_start.size() / row_bytes(width), kWidthRowsMax);
  std::array<std::byte, kNeedleHeaderBytes> header{};
  Score score;
  for (std::size_t i = 0; i < rows; ++i) {
    const IndexRow row = parse_index_row(index_start.data() + i * row_bytes(width), width);
    if (says_nothing(row, i) || !read_header(row.offset_bytes, header)) continue;
    const bool match = fits(row, parse_needle_header(header));
    score.points += match ? 1 : -1;
    score.any_match |= match;
  }
  return score;
}

/// One header from a file; an offset past its end holds no header.
bool pread_header(int fd, std::uint64_t offset_bytes,
                  std::span<std::byte, kNeedleHeaderBytes> header) {
  std::size_t done_bytes = 0;
  while (done_bytes < header.size()) {
    const ssize_t got = ::pread(fd, header.data() + done_bytes, header.size() - done_bytes,
                                static_cast<off_t>(offset_bytes + done_bytes));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return false;
    if (got == 0) {
      fill_no_header(header);
      return true;
    }
    done_bytes += static_cast<std::size_t>(got);
  }
  return true;
}

}  // namespace

void fill_no_header(std::span<std::byte, kNeedleHeaderBytes> header) noexcept {
  std::ranges::fill(header, std::byte{0xff});  // a size of -1, and records have none below 0
}

OffsetWidth detect_offset_width(std::span<const std::byte> index_start,
                                const HeaderReader& read_header) {
  const Score four = score_rows(index_start, OffsetWidth::kFour, read_header);
  const Score five = score_rows(index_start, OffsetWidth::kFive, read_header);
  if (four.points == five.points) return OffsetWidth::kUnknown;
  const bool four_wins = four.points > five.points;
  if (!(four_wins ? four : five).any_match) return OffsetWidth::kUnknown;
  return four_wins ? OffsetWidth::kFour : OffsetWidth::kFive;
}

OffsetWidth detect_offset_width(std::span<const std::byte> index_start, int dat_fd) {
  return detect_offset_width(
      index_start, [dat_fd](std::uint64_t offset, std::span<std::byte, kNeedleHeaderBytes> header) {
        return pread_header(dat_fd, offset, header);
      });
}

}  // namespace kelp
