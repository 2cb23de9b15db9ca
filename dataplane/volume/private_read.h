// Reads one needle by way of the daemon's own memory: compressed ones, those with very long fields,
// and those whose checksum did not fit when it was computed over memory the client can change.
//
// The whole record is read, checked by its checksum, inflated if need be, and the wanted range is
// copied to the client. Does no I/O itself (see needle_read.h); inflating goes in turns, so a
// needle that inflates without end takes no more than its turn.
//
// One thread at a time. Allocates nothing: the memory is the caller's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "dataplane/volume/gzip.h"
#include "dataplane/volume/read_request.h"

namespace kelp {

class PrivateRead {
 public:
  enum class Next : std::uint8_t { kIo, kInflate, kDone };

  /// Bytes of memory a record needs.
  static std::uint64_t memory_bytes(const ExpectedRecord& record) noexcept {
    return record.unpadded_bytes();
  }

  /// `memory` holds memory_bytes() and, like `inflater`, stays the read's until it is done.
  void start(const ReadRequest& request, std::span<std::byte> memory, GzipInflater& inflater,
             const GzipLimits& limits) noexcept;

  Next next() const noexcept { return next_; }
  const Io& io() const noexcept { return io_; }
  /// As NeedleRead::io_done().
  void io_done(std::int64_t result) noexcept;

  /// While next() is kInflate: produces up to `budget_bytes`, rounded up to a window of 64 KiB.
  void inflate(std::uint64_t budget_bytes) noexcept;

  const ReadOutcome& outcome() const noexcept { return outcome_; }
  const ReadRequest& request() const noexcept { return request_; }

 private:
  void finish(kelp_status status) noexcept;
  void start_io() noexcept;
  void record_arrived() noexcept;
  void serve_plain() noexcept;
  void take_window(std::span<const std::byte> window) noexcept;
  void inflated_all() noexcept;

  ReadRequest request_;
  ReadOutcome outcome_;
  std::span<std::byte> memory_;
  GzipInflater* inflater_ = nullptr;
  GzipLimits limits_;
  Io io_;
  RecordShape shape_;
  NeedleMeta meta_;
  NeedleTail tail_;
  std::uint32_t crc_ = 0;
  std::uint64_t inflated_bytes_ = 0;
  std::uint64_t wrapped_bytes_ = 0;  // added to the index's offset: 0, or request_.wrap_bytes
  Next next_ = Next::kDone;
  std::array<std::byte, 64 * 1024> window_;
};

}  // namespace kelp
