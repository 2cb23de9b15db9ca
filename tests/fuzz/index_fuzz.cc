// An .idx as it grows: rows in both widths, replayed in chunks of the fuzzer's choice.
//
// Input: width u8 | chunk u16 | pairs u8 | bytes of the file. The last `pairs` * 16 bytes stand for
// the headers the width is told by.
//
// Promises: only whole rows are consumed; the map is what a plain reading of the rows gives,
// however they were cut; the width is told without looking beyond the bytes.
#include <unordered_map>

#include "dataplane/volume/index_log.h"
#include "dataplane/volume/offset_width.h"
#include "fuzz/fuzz.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

struct Model {
  std::unordered_map<std::uint64_t, NeedleLocation> live;
  std::uint64_t rows = 0;
};

Model replay_plainly(std::span<const std::byte> bytes, OffsetWidth width) {
  Model model;
  const std::size_t row_size = row_bytes(width);
  std::size_t end = bytes.size() / row_size * row_size;
  while (end > 0 && std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(end - row_size),
                                bytes.begin() + static_cast<std::ptrdiff_t>(end),
                                [](std::byte byte) { return byte == std::byte{0}; })) {
    end -= row_size;
  }
  for (std::size_t at = 0; at < end; at += row_size) {
    const IndexRow row = parse_index_row(bytes.data() + at, width);
    must(row.offset_bytes % kNeedleAlignment == 0, "offsets are in units of 8");
    must(row.offset_bytes < (std::uint64_t{1} << 43), "and have 40 bits of them at most");
    const auto key = static_cast<std::uint64_t>(row.id);
    if (row.is_delete()) {
      model.live.erase(key);
    } else {
      model.live[key] = {row.offset_bytes, row.size};
    }
    ++model.rows;
  }
  return model;
}

void tell_width(std::span<const std::byte> rows, std::span<const std::byte> headers) {
  std::size_t asked = 0;
  const auto read_header = [&](std::uint64_t offset,
                               std::span<std::byte, kNeedleHeaderBytes> header) {
    ++asked;
    if (headers.size() < kNeedleHeaderBytes || offset > headers.size() - kNeedleHeaderBytes) {
      fill_no_header(header);
      return offset % 3 != 0;
    }
    std::copy_n(headers.begin() + static_cast<std::ptrdiff_t>(offset), kNeedleHeaderBytes,
                header.begin());
    return true;
  };
  const OffsetWidth width = detect_offset_width(rows, read_header);
  must(asked <= 2 * kWidthRowsMax, "128 headers are enough");
  must(width == OffsetWidth::kUnknown || rows.size() >= row_bytes(width), "no row, no width");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto width = input.take<std::uint8_t>() % 2 == 0 ? OffsetWidth::kFour : OffsetWidth::kFive;
  const std::size_t chunk = 1 + input.take<std::uint16_t>() % 600;
  const std::size_t header_bytes =
      std::min(input.take<std::uint8_t>() * kNeedleHeaderBytes, input.rest().size());
  const std::vector<std::byte> file = fuzz::exact_copy(input.rest());
  tell_width(std::span(file).first(file.size() - header_bytes), std::span(file).last(header_bytes));

  const Model model = replay_plainly(file, width);
  IndexLog log(3);
  log.set_width(width);
  std::uint64_t rows = 0;
  for (std::size_t end = std::min(chunk, file.size());; end = std::min(end + chunk, file.size())) {
    // What lies between the last whole row and `end` has not been consumed: it comes again.
    const std::vector<std::byte> tail =
        fuzz::exact_copy(std::span(file).subspan(log.consumed_bytes(), end - log.consumed_bytes()));
    rows += log.apply(tail, end < file.size()).rows;
    must(log.consumed_bytes() <= end && log.consumed_bytes() % log.row_size() == 0,
         "whole rows that are there");
    must(log.consumed_bytes() == rows * log.row_size(), "each row is counted");
    must(std::ranges::equal(log.last_row(),
                            std::span(file).subspan(log.consumed_bytes() - log.last_row().size(),
                                                    log.last_row().size())),
         "the last row is the last row");
    if (end == file.size()) break;
  }
  must(log.map().size() <= rows, "no more needles than rows");
  if (rows != model.rows) return 0;  // zero rows at the end of a chunk, followed by others
  must(log.map().size() == model.live.size(), "as many needles as a plain reading finds");
  for (const auto& [key, location] : model.live) {
    must(log.map().find(NeedleId{key}) == location, "each where the plain reading has it");
  }
  return 0;
}
