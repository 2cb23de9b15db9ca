// Records that fit a scratch: read in one piece, judged there, and copied on.
#include <doctest/doctest.h>

#include "dataplane/volume/needle_read.h"
#include "support/gzip_writer.h"
#include "support/read_driver.h"
#include "support/stored_needle.h"

using kelp::NeedleRead;
using kelp::ReadOutcome;
using kelp::ReadRequest;
using kelp::test::ClientBuffer;
using kelp::test::flip_byte;
using kelp::test::part_of;
using kelp::test::pattern;
using kelp::test::Storage;
using kelp::test::TestNeedle;

namespace {

struct Scene : kelp::test::Stored {
  using Stored::Stored;

  struct Answer {
    NeedleRead::Next next = NeedleRead::Next::kDone;
    ReadOutcome outcome;
    std::vector<std::byte> bytes;
    int reads = 0;
  };
  /// The scratch is exactly the record, or `short_by` bytes less: the sanitizer watches its ends.
  Answer read(std::size_t capacity, std::uint64_t offset = 0, std::size_t short_by = 0,
              Storage storage = {}, bool forgo = false) {
    ReadRequest wanted = request(offset);
    const std::size_t room = wanted.record.unpadded_bytes() - short_by;
    const auto scratch = std::make_unique<std::byte[]>(room);
    ClientBuffer buffer(capacity);
    wanted.scratch = std::span(scratch.get(), room);
    wanted.destination = buffer.bytes;
    NeedleRead read;
    std::atomic<std::uint32_t> guess{8};
    read.start(wanted, guess);
    while (read.next() == NeedleRead::Next::kIo) {
      read.io_done(storage.read(wanted.dat_fd, read.io()));
      if (forgo) {
        read.forgo_scratch();
        std::fill_n(scratch.get(), room, std::byte{0x77});  // others use it now
      }
    }
    Answer answer{read.next(), read.outcome(), {}, storage.reads};
    if (answer.next == NeedleRead::Next::kDone && answer.outcome.status == KELP_OK) {
      answer.bytes = buffer.first(answer.outcome.bytes);
    } else {
      CHECK(buffer.first(capacity) == std::vector<std::byte>(capacity, std::byte{0xcc}));
    }
    return answer;
  }
};

}  // namespace

TEST_CASE("by the scratch: every range is the right one, in one read, and checked") {
  for (const std::uint8_t version : {1, 2, 3}) {
    for (const std::size_t length : {1, 2, 100, 700}) {
      Scene scene({.data = pattern(length), .name = version == 1 ? "" : "a name"}, version);
      for (const std::uint64_t offset : {std::size_t{0}, std::size_t{1}, length / 2, length - 1}) {
        for (const std::size_t capacity : {std::size_t{1}, length / 2 + 1, length, length + 50}) {
          CAPTURE(version);
          CAPTURE(length);
          CAPTURE(offset);
          CAPTURE(capacity);
          const auto answer = scene.read(capacity, offset);
          REQUIRE(answer.next == NeedleRead::Next::kDone);
          REQUIRE(answer.outcome.status == KELP_OK);
          REQUIRE(answer.reads == 1);
          REQUIRE(answer.bytes == part_of(scene.needle.data, offset, capacity));
          REQUIRE((answer.outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0);
          REQUIRE(answer.outcome.total_bytes == length);
        }
      }
      CHECK(scene.read(10, length).outcome.bytes == 0);
      CHECK(scene.read(10, length).outcome.status == KELP_OK);
      CHECK(scene.read(10, length + 1).outcome.status == KELP_RANGE);
    }
  }
}

TEST_CASE("by the scratch: short reads give the same bytes, errors end it") {
  Scene scene({.data = pattern(300), .name = "n"});
  for (const std::size_t most : {1, 2, 7, 100}) {
    CHECK(scene.read(300, 0, 0, {.most_bytes_per_read = most}).bytes == scene.needle.data);
  }
  CHECK(scene.read(300, 0, 0, {.fail_with = -EIO}).outcome.status == KELP_CORRUPT);
}

TEST_CASE("by the scratch: a record that does not fit, or a scratch taken back, is read as ever") {
  Scene scene({.data = pattern(300), .name = "n"});
  const auto larger = scene.read(300, 0, 1);
  CHECK(larger.bytes == scene.needle.data);
  for (const std::size_t most : {std::size_t{1}, std::size_t{50}, SIZE_MAX}) {
    const auto taken_back = scene.read(300, 0, 0, {.most_bytes_per_read = most}, true);
    CHECK(taken_back.outcome.status == KELP_OK);
    CHECK(taken_back.bytes == scene.needle.data);
  }
}

TEST_CASE("by the scratch: not a byte of what is wrong reaches the client") {
  Scene damaged({.data = pattern(300)});
  flip_byte(damaged, kelp::kNeedleHeaderBytes + kelp::kDataLengthBytes + 150);
  CHECK(damaged.read(300).outcome.status == KELP_CORRUPT);
  CHECK(damaged.read(10, 5).outcome.status == KELP_CORRUPT);  // of a part, too
  Scene cookie({.data = pattern(300)});
  cookie.needle.cookie ^= 1;
  CHECK(cookie.read(300).outcome.status == KELP_WRONG_COOKIE);
  Scene other({.data = pattern(300)});
  other.needle.id ^= 1;
  CHECK(other.read(300).outcome.status == KELP_CORRUPT);
}

TEST_CASE("by the scratch: what is not plain takes the private way") {
  Scene packed(
      {.data = kelp::test::gzip_member(pattern(5000, 3)), .extra_flags = kelp::kFlagCompressed});
  CHECK(packed.read(5000).next == NeedleRead::Next::kNeedsPrivateRead);
}
