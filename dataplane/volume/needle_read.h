// Reads one plain needle into the client's memory.
//
// Decides what to read next and judges what came; does no I/O itself, so a worker drives it with
// reads that never wait and a helper thread drives the same object with reads that do. The usual
// needle takes one preadv2(): header | data, into the client's memory | fields and checksum. A
// record that fits the request's scratch is read there in one piece and judged before a byte of it
// is copied on: up to some KiB that takes less than the kernel needs for three pieces.
// Whatever is not plain (compressed, very long fields, a checksum that does not fit) ends as
// kNeedsPrivateRead: private_read.h reads those into the daemon's own memory first.
//
// One thread at a time. Allocates nothing.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "dataplane/volume/read_request.h"

namespace kelp {

class NeedleRead {
 public:
  enum class Next : std::uint8_t { kIo, kDone, kNeedsPrivateRead };

  /// `meta_guess_bytes` is the volume's, shared by all of its reads on whichever thread: looked at
  /// for the first guess, updated by what was found.
  void start(const ReadRequest& request, std::atomic<std::uint32_t>& meta_guess_bytes) noexcept;

  Next next() const noexcept { return next_; }

  /// While next() is kIo: what to read from request().dat_fd.
  const Io& io() const noexcept { return io_; }

  /// `result` as preadv() gives it: bytes, 0 at the end of the file, or -errno.
  void io_done(std::int64_t result) noexcept;

  /// While next() is kIo: takes the scratch back, before others use it. What it held is read again.
  void forgo_scratch() noexcept;

  /// After kDone.
  const ReadOutcome& outcome() const noexcept { return outcome_; }
  const ReadRequest& request() const noexcept { return request_; }

  /// Where in .dat the bytes of the outcome begin.
  std::uint64_t data_offset_bytes() const noexcept {
    return request_.record.location.offset_bytes + wrapped_bytes_ + shape_.data_offset_bytes +
           request_.offset_bytes;
  }

  /// After kDone, while the scratch still holds it: all of the content, that was judged and found
  /// right and may be kept; outcome().crc32c is its checksum. nullopt: it may not, or is not there.
  std::optional<std::span<const std::byte>> content_to_keep() const noexcept;

  /// Whether every stored byte went through the checksum.
  bool whole() const noexcept { return (outcome_.flags & KELP_FLAG_CRC_VERIFIED) != 0; }

 private:
  // Room for header, data length, and the longest fields but pairs, checksum and append time.
  static constexpr std::size_t kScratchBytes = 640;
  static constexpr std::size_t kMaxPrefix = kNeedleHeaderBytes + kDataLengthBytes;
  static constexpr std::uint64_t kSliceBytes = 256 * 1024;

  enum class Stage : std::uint8_t { kScratch, kWhole, kPrefix, kSuffix, kData, kRecheck };

  void finish(kelp_status status) noexcept;
  void need_private_read() noexcept { next_ = Next::kNeedsPrivateRead; }
  void begin_io(Stage stage, std::uint64_t record_offset) noexcept;

  void start_prefix() noexcept;
  void start_suffix() noexcept;
  void start_slice() noexcept;
  void start_recheck() noexcept;
  void scratch_arrived() noexcept;
  void whole_arrived() noexcept;
  void prefix_arrived() noexcept;
  void suffix_arrived() noexcept;
  void slice_arrived() noexcept;
  void recheck_arrived() noexcept;
  bool judge_prefix() noexcept;
  bool judge_suffix(std::span<const std::byte> meta_and_tail) noexcept;
  std::span<std::byte> slice() noexcept;
  void finish_whole(std::uint32_t crc) noexcept;
  void finish_stat() noexcept;

  std::span<std::byte> prefix() noexcept {
    return std::span(scratch_).first(request_.record.prefix_bytes());
  }
  std::span<std::byte> suffix_room() noexcept { return std::span(scratch_).subspan(kMaxPrefix); }

  ReadRequest request_;
  ReadOutcome outcome_;
  Io io_;
  RecordShape shape_;
  NeedleMeta meta_;
  NeedleTail tail_;
  std::atomic<std::uint32_t>* meta_guess_bytes_ = nullptr;
  std::uint64_t direct_bytes_ = 0;   // data bytes aimed at the client's memory
  std::uint64_t wrapped_bytes_ = 0;  // added to the index's offset: 0, or request_.wrap_bytes
  std::uint32_t crc_ = 0;            // of the slices so far
  Stage stage_ = Stage::kWhole;
  Next next_ = Next::kDone;
  std::array<std::byte, kScratchBytes> scratch_;
};

}  // namespace kelp
