// Executors of NeedleRead and PrivateRead for tests: they answer with short reads, ends of file
// and errors as told, and check that nothing outside of destination and memory was written.
#pragma once

#include <doctest/doctest.h>
#include <sys/uio.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "dataplane/volume/needle_read.h"
#include "dataplane/volume/private_read.h"
#include "support/volume_writer.h"

namespace kelp::test {

/// How the storage behaves.
struct Storage {
  std::size_t most_bytes_per_read = SIZE_MAX;  ///< short reads, down to 1
  std::int64_t fail_with = 0;                  ///< -errno of read number `fail_at`
  int fail_at = 0;
  std::function<void(int)> before_read{};  ///< told the number of the read, from 0

  int reads = 0;

  std::int64_t read(int fd, const Io& io) {
    if (before_read) before_read(reads);
    if (reads++ == fail_at && fail_with != 0) return fail_with;
    std::size_t left = most_bytes_per_read;
    std::vector<iovec> parts;
    for (int i = 0; i < io.parts_left() && left > 0; ++i) {
      iovec part = io.data()[i];
      part.iov_len = std::min(part.iov_len, left);
      left -= part.iov_len;
      parts.push_back(part);
    }
    const ssize_t got = ::preadv(fd, parts.data(), static_cast<int>(parts.size()),
                                 static_cast<off_t>(io.offset_bytes));
    return got < 0 ? -errno : got;
  }
};

/// A client's buffer of exactly `size` bytes: the sanitizer watches its ends.
struct ClientBuffer {
  explicit ClientBuffer(std::size_t size)
      : memory(std::make_unique<std::byte[]>(size)), bytes(memory.get(), size) {
    std::ranges::fill(bytes, std::byte{0xcc});
  }
  std::vector<std::byte> first(std::size_t count) const {
    return {bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(count)};
  }
  std::unique_ptr<std::byte[]> memory;
  std::span<std::byte> bytes;
};

inline NeedleRead::Next drive(NeedleRead& read, const ReadRequest& request,
                              std::atomic<std::uint32_t>& guess, Storage& storage) {
  read.start(request, guess);
  int rounds = 0;
  while (read.next() == NeedleRead::Next::kIo) {
    REQUIRE(++rounds < 10'000'000);
    read.io_done(storage.read(request.dat_fd, read.io()));
  }
  return read.next();
}

inline ReadOutcome drive_private(const ReadRequest& request, Storage& storage,
                                 const GzipLimits& limits = {},
                                 std::uint64_t turn_bytes = 1 << 20) {
  const std::size_t needed = PrivateRead::memory_bytes(request.record);
  const auto memory = std::make_unique<std::byte[]>(needed);  // exactly: the sanitizer watches
  GzipInflater inflater;
  const auto read = std::make_unique<PrivateRead>();
  read->start(request, std::span(memory.get(), needed), inflater, limits);
  int rounds = 0;
  while (read->next() != PrivateRead::Next::kDone) {
    REQUIRE(++rounds < 10'000'000);
    if (read->next() == PrivateRead::Next::kIo) {
      read->io_done(storage.read(request.dat_fd, read->io()));
    } else {
      read->inflate(turn_bytes);
    }
  }
  return read->outcome();
}

/// As worker and loader do it together: the straight way, and the private one where it is needed.
struct ReadResult {
  ReadOutcome outcome;
  bool privately = false;
  int reads = 0;
  std::vector<std::byte> bytes;  ///< what the client got
};

inline ReadResult read_needle(ReadRequest request, std::size_t capacity, std::uint32_t first_guess,
                              Storage storage = {}, const GzipLimits& limits = {}) {
  ClientBuffer buffer(capacity);
  request.destination = buffer.bytes;
  std::atomic<std::uint32_t> guess{first_guess};
  NeedleRead read;
  ReadResult result;
  if (drive(read, request, guess, storage) == NeedleRead::Next::kNeedsPrivateRead) {
    result.privately = true;
    result.outcome = drive_private(read.request(), storage, limits);
  } else {
    result.outcome = read.outcome();
  }
  result.reads = storage.reads;
  REQUIRE(result.outcome.bytes <= capacity);
  if (result.outcome.status == KELP_OK) result.bytes = buffer.first(result.outcome.bytes);
  return result;
}

inline ReadRequest request_for(const VolumeWriter& writer, const TestNeedle& needle,
                               const NeedleLocation& at, std::uint64_t offset = 0) {
  ReadRequest request;
  request.record = {.location = at,
                    .needle = NeedleId{needle.id},
                    .cookie = Cookie{needle.cookie},
                    .version = writer.options().version};
  request.dat_fd = writer.dat_fd();
  request.offset_bytes = offset;
  return request;
}

/// Bytes whose every position can be told.
inline std::vector<std::byte> pattern(std::size_t length, std::uint32_t seed = 1) {
  std::vector<std::byte> bytes(length);
  std::uint32_t state = seed * 2654435761u + 12345;
  for (std::byte& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<std::byte>(state >> 24);
  }
  return bytes;
}

inline std::vector<std::byte> part_of(const std::vector<std::byte>& all, std::uint64_t offset,
                                      std::uint64_t capacity) {
  const std::uint64_t count = std::min<std::uint64_t>(capacity, all.size() - offset);
  const auto first = all.begin() + static_cast<std::ptrdiff_t>(offset);
  return {first, first + static_cast<std::ptrdiff_t>(count)};
}

}  // namespace kelp::test

template <>
struct doctest::StringMaker<kelp_status> {
  static String convert(kelp_status value) { return toString(static_cast<int>(value)); }
};
