// Needles that are judged where they lie, for whoever sends them on from there.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/volume/needle_read.h"
#include "support/read_driver.h"
#include "support/stored_needle.h"

using namespace kelp;
using namespace kelp::test;

TEST_CASE("bytes that are only judged: their place and checksum are told, whole and ranged") {
  const std::size_t slice = 256 * 1024;
  for (const std::size_t length : {slice + 1, 3 * slice, 5 * slice + 77}) {
    const Stored stored({.data = pattern(length), .name = "name"});
    for (const std::size_t offset : {std::size_t{0}, std::size_t{1}, slice, length - 1, length}) {
      for (const std::size_t capacity : {length + 9, slice + 3}) {
        CAPTURE(length);
        CAPTURE(offset);
        CAPTURE(capacity);
        ReadRequest wanted = stored.request(offset);
        wanted.judge_only = true;
        std::vector<std::byte> room(capacity);
        wanted.destination = room;
        std::atomic<std::uint32_t> guess{8};
        NeedleRead read;
        Storage storage;
        REQUIRE(drive(read, wanted, guess, storage) == NeedleRead::Next::kDone);
        const ReadOutcome& outcome = read.outcome();
        REQUIRE(outcome.status == KELP_OK);
        REQUIRE(outcome.bytes == std::min(capacity, length - offset));
        if (outcome.bytes == 0) continue;
        CHECK(((outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0) == (outcome.bytes == length));
        std::vector<std::byte> again(outcome.bytes);
        REQUIRE(::pread(stored.writer.dat_fd(), again.data(), again.size(),
                        static_cast<off_t>(read.data_offset_bytes())) ==
                static_cast<ssize_t>(again.size()));
        CHECK(again == part_of(stored.needle.data, offset, outcome.bytes));
        REQUIRE(outcome.has_crc);
        CHECK(outcome.crc32c == crc32c(again));
        // Nothing but the start of the room was used.
        CHECK(std::all_of(room.begin() + static_cast<std::ptrdiff_t>(slice), room.end(),
                          [](std::byte each) { return each == std::byte{0}; }));
      }
    }
  }
}

TEST_CASE("bytes that are only judged and do not fit their checksum go the private way") {
  const Stored stored({.data = pattern(700'000)});
  flip_byte(stored, 400'000);
  ReadRequest wanted = stored.request();
  wanted.judge_only = true;
  std::vector<std::byte> room(700'000);
  wanted.destination = room;
  std::atomic<std::uint32_t> guess{8};
  NeedleRead read;
  Storage storage;
  CHECK(drive(read, wanted, guess, storage) == NeedleRead::Next::kNeedsPrivateRead);
}
