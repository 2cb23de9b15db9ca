// A record of a .dat file, read all ways: straight into a client's buffer, by a scratch, and by way
// of private memory. The file is the fuzzer's bytes, served in pieces as small as it likes.
//
// Input: version u8 | mode u8 | piece u8 | guess u16 | capacity u16 | offset u16 | super block and
// records. Mode: 1 stat, 2 mend the checksum, 4 another cookie, 8 another size, 16 the offset
// counts, 32 the record is first looked for 8 bytes early and found by the wrap, 64 the bytes are
// only judged, and read again from where they are said to be.
//
// Promises: no byte outside of the buffer; OK with KELP_FLAG_CRC_VERIFIED only for bytes whose
// checksum fits, and exactly those bytes; the ways agree wherever they answer.
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "dataplane/checksum/stored_checksum.h"
#include "dataplane/volume/needle_read.h"
#include "dataplane/volume/private_read.h"
#include "dataplane/volume/super_block.h"
#include "fuzz/fuzz.h"
#include "fuzz/record.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

constexpr std::size_t kLargestPrivate = 1 << 20;
constexpr std::size_t kScratchBytes = 2048;

/// A .dat in memory that hands out at most `piece` bytes at a time.
struct File {
  std::span<const std::byte> bytes;
  std::size_t piece;

  std::int64_t read(const Io& io) const {
    if (io.offset_bytes > bytes.size()) return 0;
    std::span<const std::byte> from = bytes.subspan(io.offset_bytes);
    from = from.first(std::min(from.size(), piece));
    std::size_t done = 0;
    for (int i = 0; i < io.parts_left() && done < from.size(); ++i) {
      const iovec& part = io.data()[i];
      const std::size_t count = std::min(part.iov_len, from.size() - done);
      std::memcpy(part.iov_base, from.data() + done, count);
      done += count;
    }
    return static_cast<std::int64_t>(done);
  }
};

struct Answer {
  bool done = false;  ///< false: this way leaves it to the other
  ReadOutcome outcome;
  std::vector<std::byte> buffer;

  bool ok() const { return done && outcome.status == KELP_OK; }
  bool whole() const { return (outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0; }
};

/// What whoever sends the bytes of a judged record does.
void read_again(std::uint64_t offset, const File& file, Answer& answer) {
  must(answer.outcome.bytes <= answer.buffer.size(), "no more bytes than there is room for");
  if (answer.outcome.bytes == 0) return;
  must(offset <= file.bytes.size() && answer.outcome.bytes <= file.bytes.size() - offset,
       "judged bytes lie in the file");
  std::ranges::copy(file.bytes.subspan(offset, answer.outcome.bytes), answer.buffer.begin());
  must(answer.outcome.has_crc &&
           answer.outcome.crc32c ==
               fuzz::slow_crc32c(std::span(answer.buffer).first(answer.outcome.bytes)),
       "their checksum is told");
}

Answer read_straight(ReadRequest request, std::size_t capacity, std::uint32_t guess,
                     const File& file, std::span<std::byte> scratch = {}) {
  Answer answer;
  answer.buffer.assign(capacity, std::byte{0xcc});
  request.destination = answer.buffer;
  request.scratch = scratch;
  std::atomic<std::uint32_t> meta_guess{guess};
  NeedleRead read;
  read.start(request, meta_guess);
  for (std::size_t steps = 0; read.next() == NeedleRead::Next::kIo; ++steps) {
    must(steps < 8 * file.bytes.size() + 1000, "a read ends");
    read.io_done(file.read(read.io()));
  }
  answer.done = read.next() == NeedleRead::Next::kDone;
  answer.outcome = read.outcome();
  if (request.judge_only && answer.ok() && !request.stat) {
    read_again(read.data_offset_bytes(), file, answer);
  }
  return answer;
}

Answer read_privately(ReadRequest request, std::size_t capacity, const File& file) {
  Answer answer;
  const std::uint64_t needed = PrivateRead::memory_bytes(request.record);
  if (needed > kLargestPrivate) return answer;
  answer.buffer.assign(capacity, std::byte{0xcc});
  request.destination = answer.buffer;
  static GzipInflater inflater;
  static PrivateRead read;
  const auto memory = std::make_unique<std::byte[]>(needed);
  read.start(request, std::span(memory.get(), needed), inflater,
             {.max_output_bytes = kLargestPrivate, .max_ratio = 1100});
  for (std::size_t steps = 0; read.next() != PrivateRead::Next::kDone; ++steps) {
    must(steps < 8 * file.bytes.size() + 1000, "a private read ends");
    if (read.next() == PrivateRead::Next::kIo) {
      read.io_done(file.read(read.io()));
    } else {
      read.inflate(64 * 1024);
    }
  }
  answer.done = true;
  answer.outcome = read.outcome();
  return answer;
}

void judge(const Answer& answer, const ReadRequest& request, std::span<const std::byte> record) {
  if (!answer.ok()) return;
  must(answer.outcome.bytes <= answer.buffer.size(), "no more bytes than there is room for");
  if (request.stat) return;
  must(request.offset_bytes + answer.outcome.bytes <= answer.outcome.total_bytes,
       "a range lies inside");
  const auto layout = fuzz::lay_out(record, request.record.version);
  must(layout.has_value(), "OK is for records that are whole");
  const auto stored = record.subspan(layout->data_at, layout->data_bytes);
  if (answer.whole() && request.record.body_bytes() != 0) {
    must(checksum_matches(load_be32(&record[layout->checksum_at]), fuzz::slow_crc32c(stored)),
         "verified means that the checksum fits");
  }
  if ((answer.outcome.flags & KELP_FLAG_INFLATED) != 0) return;
  must(answer.outcome.total_bytes == stored.size(), "the size is the data's");
  must(std::memcmp(answer.buffer.data(), stored.data() + request.offset_bytes,
                   answer.outcome.bytes) == 0,
       "the bytes are the record's");
}

/// Of an answer to a stat without the checksum. Without the data nobody can tell whether the one in
/// the record is masked, as servers before 3.09 stored it; the private way has the data, and can.
void forget_checksum(Answer& answer) {
  constexpr std::size_t kAt = offsetof(kelp_stat, crc32c);
  for (std::size_t i = kAt; i < std::min(kAt + 4, answer.buffer.size()); ++i) {
    answer.buffer[i] = std::byte{0};
  }
}

void compare(const Answer& straight, const Answer& privately) {
  if (!straight.done || !privately.done) return;
  // Without a checksum over everything the straight way may answer what the private one refuses.
  if (privately.ok() || straight.whole()) {
    must(straight.outcome.status == privately.outcome.status, "both ways agree");
  }
  if (!straight.ok() || !privately.ok()) return;
  must(straight.outcome.bytes == privately.outcome.bytes &&
           straight.outcome.total_bytes == privately.outcome.total_bytes,
       "on the sizes");
  must(std::equal(straight.buffer.begin(), straight.buffer.begin() + straight.outcome.bytes,
                  privately.buffer.begin()),
       "and on the bytes");
}

/// Puts the right checksum where the record says one is, so that what lies behind that check is
/// reached at all.
void mend_checksum(std::span<std::byte> record, std::uint8_t version) {
  const auto layout = fuzz::lay_out(record, version);
  if (!layout) return;
  std::uint32_t crc = fuzz::slow_crc32c(record.subspan(layout->data_at, layout->data_bytes));
  for (std::size_t i = 4; i-- > 0; crc >>= 8) {
    record[layout->checksum_at + i] = static_cast<std::byte>(crc);
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto version = static_cast<std::uint8_t>(1 + input.take<std::uint8_t>() % 3);
  const auto mode = input.take<std::uint8_t>();
  const auto piece = input.take<std::uint8_t>();
  const auto guess = input.take<std::uint16_t>();
  const auto capacity = static_cast<std::size_t>(1 + input.take<std::uint16_t>() % 4096);
  const auto offset = input.take<std::uint16_t>();
  std::vector<std::byte> bytes = fuzz::exact_copy(input.rest());

  if (bytes.size() < kSuperBlockBytes + kNeedleHeaderBytes) return 0;
  const auto block = parse_super_block(std::span(bytes).first<kSuperBlockBytes>());
  must(block.has_value() == (bytes[0] >= std::byte{1} && bytes[0] <= std::byte{3}),
       "versions 1 to 3 are known");
  if (block) must(block->first_needle_offset() >= kSuperBlockBytes, "records follow the block");

  const std::span<std::byte> record = std::span(bytes).subspan(kSuperBlockBytes);
  if ((mode & 2) != 0) mend_checksum(record, version);
  const NeedleHeader header = parse_needle_header(record.first<kNeedleHeaderBytes>());
  ReadRequest request;
  request.record.version = version;
  request.record.needle = header.id;
  request.record.cookie = (mode & 4) == 0 ? header.cookie : Cookie{guess};
  // Rows with a negative size are deletes; none reaches a read.
  request.record.location = {kSuperBlockBytes, (mode & 8) == 0 ? std::max(header.body_bytes, 0)
                                                               : static_cast<std::int32_t>(guess)};
  request.stat = (mode & 1) != 0;
  request.offset_bytes = (mode & 16) != 0 ? offset : 0;
  if ((mode & 32) != 0) {
    request.record.location.offset_bytes = 0;
    request.wrap_bytes = kSuperBlockBytes;
  }
  const File file{bytes, std::size_t{1} + piece};
  request.judge_only = (mode & 64) != 0;
  Answer straight = read_straight(request, capacity, guess, file);
  request.judge_only = false;
  Answer privately = read_privately(request, capacity, file);
  std::vector<std::byte> scratch(kScratchBytes);
  Answer by_scratch = read_straight(request, capacity, guess, file, scratch);
  const bool may_be_early = (mode & 32) != 0;  // then the record may be the one 8 bytes before
  if (!may_be_early) {
    judge(straight, request, record);
    judge(privately, request, record);
    judge(by_scratch, request, record);
  }
  if (request.stat) {
    forget_checksum(straight);
    forget_checksum(privately);
    forget_checksum(by_scratch);
  }
  compare(straight, privately);
  compare(by_scratch, privately);
  return 0;
}
