// What a read wants, what it got, and one step of I/O towards it: the words both ways of reading a
// record share. The executor (worker or helper thread) does the I/O; the readers only decide.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/volume/record_check.h"
#include "shm_ring/kelp.h"

namespace kelp {

struct ReadRequest {
  ExpectedRecord record;
  int dat_fd = -1;
  bool stat = false;
  std::uint64_t offset_bytes = 0;    ///< into the logical content
  std::span<std::byte> destination;  ///< the client's memory: written, never trusted
  /// Where else the record may be if it is not where the index says: 4-byte indexes wrap at 32 GiB.
  /// Added once to the offset; 0: nowhere.
  std::uint64_t wrap_bytes = 0;
  /// Memory of the reader's own, lent until the first I/O is done, for records that fit. Empty:
  /// there is none.
  std::span<std::byte> scratch;
  /// The bytes are only judged: piece after piece lands at the start of `destination`, whose size
  /// is still the range's. Whoever wants them reads ReadOutcome::bytes again, from
  /// NeedleRead::data_offset_bytes(), and finds their checksum in the outcome. Not what
  /// private_read.h reads: that is all in `destination`.
  bool judge_only = false;
};

struct ReadOutcome {
  kelp_status status = KELP_UNAVAILABLE;
  std::uint16_t flags = 0;  ///< KELP_FLAG_*
  bool has_crc = false;     ///< `crc32c` is that of the bytes
  std::uint32_t bytes = 0;
  std::uint32_t crc32c = 0;
  std::uint64_t total_bytes = 0;
};

/// One positioned, scattered read. `parts` shrinks as bytes arrive.
struct Io {
  std::uint64_t offset_bytes = 0;  ///< in .dat
  std::array<iovec, 3> parts{};
  std::uint32_t first = 0;  ///< parts before it are full
  std::uint32_t count = 0;

  void start(std::uint64_t offset) noexcept {
    offset_bytes = offset;
    first = count = 0;
  }
  void add(std::span<std::byte> memory) noexcept {
    if (!memory.empty()) parts[count++] = {memory.data(), memory.size()};
  }
  /// Takes `bytes` that arrived; true when nothing is missing.
  bool advance(std::size_t bytes) noexcept;
  const iovec* data() const noexcept { return parts.data() + first; }
  int parts_left() const noexcept { return static_cast<int>(count - first); }
};

/// Where the logical range [offset, offset + capacity) of `total` bytes ends up: KELP_RANGE beyond
/// the end, otherwise KELP_OK with `outcome.bytes`, `total_bytes` and KELP_FLAG_TRUNCATED set.
void settle_range(std::uint64_t offset, std::uint64_t capacity, std::uint64_t total,
                  ReadOutcome& outcome) noexcept;

/// Writes a kelp_stat, then name, MIME type and pairs, as much as `destination` holds.
void write_stat(const ReadRequest& request, const RecordShape& shape, const NeedleMeta& meta,
                const NeedleTail& tail, std::uint64_t total_bytes, std::uint32_t crc32c,
                ReadOutcome& outcome) noexcept;

}  // namespace kelp
