// A needle in a volume of its own, and how to read it.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include "support/read_driver.h"
#include "support/temp_dir.h"
#include "support/volume_writer.h"

namespace kelp::test {

/// One volume with one needle, between two neighbours.
struct Stored {
  explicit Stored(const TestNeedle& stored, std::uint8_t version = 3)
      : writer(dir.path(), {.version = version}), needle(stored) {
    writer.put({.id = 1000, .data = pattern(77, 9)});
    at = writer.put(needle);
    writer.put({.id = 1001, .data = pattern(99, 8)});
  }
  ReadRequest request(std::uint64_t offset = 0) const {
    return request_for(writer, needle, at, offset);
  }
  ReadRequest stat_request() const {
    ReadRequest wanted = request();
    wanted.stat = true;
    return wanted;
  }
  ReadResult read(std::size_t capacity, std::uint64_t offset = 0, std::uint32_t guess = 8) const {
    return read_needle(request(offset), capacity, guess);
  }

  TempDir dir;
  VolumeWriter writer;
  TestNeedle needle;
  NeedleLocation at;
};

inline void flip_byte(const Stored& stored, std::uint64_t at_in_record) {
  std::byte byte;
  const auto at = static_cast<off_t>(stored.at.offset_bytes + at_in_record);
  REQUIRE(::pread(stored.writer.dat_fd(), &byte, 1, at) == 1);
  byte ^= std::byte{0x40};
  REQUIRE(::pwrite(stored.writer.dat_fd(), &byte, 1, at) == 1);
}

}  // namespace kelp::test
