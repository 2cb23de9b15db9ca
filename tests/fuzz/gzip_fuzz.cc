// The data of a compressed needle.
//
// Input: turn u16 | limit u16 | ratio u16 | stream.
//
// Promises: no more bytes than the limits allow; the same bytes whatever the size of the turns;
// what zlib takes, member by member, is taken, and gives the same bytes. (The other way round there
// is one difference: Go's reader, whose behaviour counts, ignores header flags zlib does not know.)
#include <zlib.h>

#include <string_view>

#include "dataplane/volume/gzip.h"
#include "fuzz/fuzz.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

constexpr std::size_t kMostOutput = 1 << 18;

struct Inflated {
  GzipInflater::State state = GzipInflater::State::kMore;
  std::vector<std::byte> bytes;
};

Inflated inflate_in_turns(std::span<const std::byte> stored, const GzipLimits& limits,
                          std::size_t turn) {
  static GzipInflater inflater;
  Inflated result;
  inflater.reset(stored, limits);
  std::vector<std::byte> window(turn);
  for (std::size_t turns = 0; result.state == GzipInflater::State::kMore; ++turns) {
    must(turns < limits.max_output_bytes + stored.size() + 1000, "a stream ends");
    const GzipInflater::Turn done = inflater.inflate(window);
    must(done.bytes_produced <= window.size(), "no more than there is room for");
    result.bytes.insert(result.bytes.end(), window.begin(),
                        window.begin() + static_cast<std::ptrdiff_t>(done.bytes_produced));
    must(result.bytes.size() <= limits.max_output_bytes + 1, "at most one byte beyond the limit");
    result.state = done.state;
  }
  const GzipInflater::Turn after = inflater.inflate(window);
  must(after.bytes_produced == 0 && after.state == result.state, "the last word stays");
  return result;
}

enum class Verdict : std::uint8_t { kWhole, kDamaged, kUnknownFlags };

struct ByZlib {
  Verdict verdict = Verdict::kDamaged;
  std::vector<std::byte> bytes;
};

/// What zlib makes of a sequence of members.
ByZlib inflate_by_zlib(std::span<const std::byte> stored) {
  ByZlib result;
  result.bytes.resize(kMostOutput + 1);
  z_stream stream{};
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(stored.data()));
  stream.avail_in = static_cast<uInt>(stored.size());
  stream.next_out = reinterpret_cast<Bytef*>(result.bytes.data());
  stream.avail_out = static_cast<uInt>(result.bytes.size());
  bool whole = inflateInit2(&stream, 15 + 16) == Z_OK;
  while (whole) {
    whole = inflate(&stream, Z_FINISH) == Z_STREAM_END;
    if (!whole || stream.avail_in == 0) break;
    whole = inflateReset(&stream) == Z_OK;
  }
  const std::string_view complaint = stream.msg == nullptr ? "" : stream.msg;
  if (whole) result.verdict = Verdict::kWhole;
  if (complaint == "unknown header flags set") result.verdict = Verdict::kUnknownFlags;
  result.bytes.resize(result.bytes.size() - stream.avail_out);
  inflateEnd(&stream);
  return result;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const std::size_t turn = 1 + input.take<std::uint16_t>() % 8192;
  const std::uint64_t limit = input.take<std::uint16_t>();
  const std::uint32_t ratio = input.take<std::uint16_t>();
  const std::vector<std::byte> stored = fuzz::exact_copy(input.rest());

  const GzipLimits wide{.max_output_bytes = kMostOutput, .max_ratio = 1100};
  const Inflated whole = inflate_in_turns(stored, wide, 64 * 1024);
  const Inflated pieces = inflate_in_turns(stored, wide, turn);
  must(whole.state == pieces.state, "the verdict does not depend on the turns");
  const ByZlib judge = inflate_by_zlib(stored);
  if (whole.state == GzipInflater::State::kEnd) {
    must(whole.bytes == pieces.bytes, "nor do the bytes");
    must(judge.verdict != Verdict::kDamaged, "what zlib refuses is refused");
  }
  if (judge.verdict == Verdict::kWhole && judge.bytes.size() <= kMostOutput) {
    must(whole.state == GzipInflater::State::kEnd && whole.bytes == judge.bytes, "zlib agrees");
  }
  const Inflated narrow = inflate_in_turns(stored, {limit, ratio}, turn);
  if (narrow.state == GzipInflater::State::kEnd) {
    must(narrow.bytes.size() <= limit && narrow.bytes.size() <= stored.size() * ratio,
         "what ends well is within the limits");
  }
  return 0;
}
