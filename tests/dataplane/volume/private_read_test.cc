#include "dataplane/volume/private_read.h"

#include <doctest/doctest.h>

#include <cstring>

#include "dataplane/checksum/stored_checksum.h"
#include "support/gzip_writer.h"
#include "support/read_driver.h"
#include "support/volume_writer.h"

using kelp::GzipLimits;
using kelp::NeedleLocation;
using kelp::ReadOutcome;
using kelp::ReadRequest;
using kelp::test::ClientBuffer;
using kelp::test::drive_private;
using kelp::test::gzip_member;
using kelp::test::part_of;
using kelp::test::pattern;
using kelp::test::request_for;
using kelp::test::Storage;
using kelp::test::TempDir;
using kelp::test::TestNeedle;
using kelp::test::VolumeWriter;

namespace {

struct Answer {
  ReadOutcome outcome;
  std::vector<std::byte> bytes;
};

struct Stored {
  explicit Stored(const TestNeedle& stored, std::uint8_t version = 3)
      : writer(dir.path(), {.version = version}), needle(stored), at(writer.put(needle)) {}

  Answer read(std::size_t capacity, std::uint64_t offset = 0, Storage storage = {},
              const GzipLimits& limits = {}, std::uint64_t turn_bytes = 1 << 20) const {
    return ask(request_for(writer, needle, at, offset), capacity, std::move(storage), limits,
               turn_bytes);
  }
  static Answer ask(ReadRequest request, std::size_t capacity, Storage storage = {},
                    const GzipLimits& limits = {}, std::uint64_t turn_bytes = 1 << 20) {
    ClientBuffer buffer(capacity);
    request.destination = buffer.bytes;
    Answer answer{drive_private(request, storage, limits, turn_bytes), {}};
    REQUIRE(answer.outcome.bytes <= capacity);
    if (answer.outcome.status == KELP_OK) answer.bytes = buffer.first(answer.outcome.bytes);
    return answer;
  }

  TempDir dir;
  VolumeWriter writer;
  TestNeedle needle;
  NeedleLocation at;
};

TestNeedle compressed(std::vector<std::byte> stored) {
  return {.data = std::move(stored), .extra_flags = kelp::kFlagCompressed};
}

/// Compressible, and long enough for several windows and turns.
std::vector<std::byte> text(std::size_t length) {
  auto bytes = pattern(length);
  for (std::byte& byte : bytes) byte &= std::byte{0x0f};
  return bytes;
}

}  // namespace

TEST_CASE("read privately, every range of a plain needle is right and proven") {
  for (const std::uint8_t version : {1, 2, 3}) {
    for (const std::size_t length : {0, 1, 9, 24}) {
      const Stored stored({.data = pattern(length), .name = "n"}, version);
      for (std::uint64_t offset = 0; offset <= length + 1; ++offset) {
        for (std::size_t capacity = 1; capacity <= length + 2; ++capacity) {
          for (const std::size_t most : {std::size_t{1}, std::size_t{7}, SIZE_MAX}) {
            const Answer answer = stored.read(capacity, offset, {.most_bytes_per_read = most});
            if (offset > length) {
              REQUIRE(answer.outcome.status == KELP_RANGE);
              continue;
            }
            REQUIRE(answer.outcome.status == KELP_OK);
            REQUIRE(answer.bytes == part_of(stored.needle.data, offset, capacity));
            REQUIRE((answer.outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0);
            REQUIRE(((answer.outcome.flags & KELP_FLAG_TRUNCATED) != 0) ==
                    (offset + capacity < length));
          }
        }
      }
      CHECK(stored.read(5, UINT64_MAX).outcome.status == KELP_RANGE);
    }
  }
}

TEST_CASE("read privately, the record must be the one asked for") {
  const Stored stored({.data = pattern(100)});
  ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
  request.record.needle = kelp::NeedleId{99};
  CHECK(Stored::ask(request, 100).outcome.status == KELP_CORRUPT);
  request = request_for(stored.writer, stored.needle, stored.at);
  request.record.cookie = kelp::Cookie{1};
  CHECK(Stored::ask(request, 100).outcome.status == KELP_WRONG_COOKIE);
  request = request_for(stored.writer, stored.needle, stored.at);
  request.record.location.body_bytes -= 1;
  CHECK(Stored::ask(request, 100).outcome.status == KELP_CORRUPT);
}

TEST_CASE("read privately, tiny bodies that no server writes are refused") {
  for (const std::uint8_t version : {1, 2, 3}) {
    const Stored stored({.data = pattern(50)}, version);
    for (std::int32_t body = 1; body <= 5; ++body) {
      ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
      request.record.location.body_bytes = body;
      CHECK(Stored::ask(request, 100).outcome.status == KELP_CORRUPT);
    }
  }
}

TEST_CASE(
    "read privately, a wrong checksum is corrupt for every range, and a masked one is right") {
  const auto data = pattern(100);
  const Stored wrong({.data = data, .checksum = 1});
  CHECK(wrong.read(100).outcome.status == KELP_CORRUPT);
  CHECK(wrong.read(5, 50).outcome.status == KELP_CORRUPT);
  const Stored masked({.data = data, .checksum = kelp::masked_crc(kelp::crc32c(data))});
  CHECK(masked.read(100).bytes == data);
}

TEST_CASE("read privately, errors and ends of file are corrupt") {
  const Stored stored({.data = pattern(100)});
  CHECK(stored.read(100, 0, {.fail_with = -EIO}).outcome.status == KELP_CORRUPT);
  CHECK(stored.read(100, 0, {.most_bytes_per_read = 5, .fail_with = -EIO, .fail_at = 3})
            .outcome.status == KELP_CORRUPT);
  ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
  request.record.location.offset_bytes += 1 << 20;
  CHECK(Stored::ask(request, 100).outcome.status == KELP_CORRUPT);
}

TEST_CASE("a compressed needle inflates, whole and in every kind of range") {
  for (const std::uint8_t version : {2, 3}) {
    const auto plain = text(300'000);
    const Stored stored(compressed(gzip_member(plain)), version);
    REQUIRE(stored.needle.data.size() < plain.size());
    for (const std::uint64_t turn :
         {std::uint64_t{1}, std::uint64_t{1} << 16, std::uint64_t{1} << 20}) {
      for (const std::uint64_t offset : {0, 1, 65'535, 65'536, 65'537, 131'072, 299'999, 300'000}) {
        for (const std::size_t capacity : {1, 65'536, 100'000, 300'000, 400'000}) {
          const Answer answer = stored.read(capacity, offset, {}, {}, turn);
          REQUIRE(answer.outcome.status == KELP_OK);
          REQUIRE(answer.bytes == part_of(plain, offset, capacity));
          REQUIRE(answer.outcome.total_bytes == plain.size());
          REQUIRE((answer.outcome.flags & KELP_FLAG_INFLATED) != 0);
          REQUIRE(((answer.outcome.flags & KELP_FLAG_TRUNCATED) != 0) ==
                  (offset + capacity < plain.size()));
        }
      }
    }
    for (const std::uint64_t beyond : {std::uint64_t{300'001}, UINT64_MAX - 3, UINT64_MAX}) {
      CHECK(stored.read(10, beyond).outcome.status == KELP_RANGE);
    }
  }
}

TEST_CASE("several gzip members are one needle") {
  const auto first = text(70'000);
  const auto second = text(1000);
  auto both = gzip_member(first);
  const auto more = gzip_member(second);
  both.insert(both.end(), more.begin(), more.end());
  auto plain = first;
  plain.insert(plain.end(), second.begin(), second.end());
  CHECK(Stored(compressed(both)).read(80'000, 69'990).bytes == part_of(plain, 69'990, 80'000));
}

TEST_CASE("gzip of nothing is a needle of nothing") {
  const Stored stored(compressed(gzip_member({})));
  const Answer answer = stored.read(10);
  CHECK(answer.outcome.status == KELP_OK);
  CHECK(answer.outcome.bytes == 0);
  CHECK(answer.outcome.total_bytes == 0);
  CHECK(stored.read(10, 1).outcome.status == KELP_RANGE);
}

TEST_CASE("gzip that is cut, damaged or followed by garbage is broken, for ranges before it too") {
  const auto packed = gzip_member(text(100'000));
  const std::vector<std::byte> cut(packed.begin(), packed.end() - 5);
  auto damaged = packed;
  damaged[damaged.size() - 6] ^= std::byte{1};
  auto garbage = packed;
  garbage.push_back(std::byte{7});
  const std::vector<std::byte> head{std::byte{0x1f}, std::byte{0x8b}};
  for (const auto& stored_bytes : {cut, damaged, garbage, head}) {
    const Stored stored(compressed(stored_bytes));
    CHECK(stored.read(200'000).outcome.status == KELP_BROKEN_GZIP);
    CHECK(stored.read(1, 0).outcome.status == KELP_BROKEN_GZIP);
    ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
    request.stat = true;
    CHECK(Stored::ask(request, 200).outcome.status == KELP_BROKEN_GZIP);
  }
}

TEST_CASE("damaged compressed bytes are corrupt before they are broken gzip") {
  auto needle = compressed(gzip_member(text(1000)));
  needle.checksum = 5;
  CHECK(Stored(needle).read(2000).outcome.status == KELP_CORRUPT);
}

TEST_CASE("a needle that inflates beyond the limit is left to the server") {
  const std::vector<std::byte> zeroes(5'000'000);
  const Stored stored(compressed(gzip_member(zeroes, 9)));
  GzipLimits limits;
  limits.max_output_bytes = 4'999'999;
  CHECK(stored.read(100, 0, {}, limits).outcome.status == KELP_USE_HTTP);
  CHECK(stored.read(100, 4'999'990, {}, limits).outcome.status == KELP_USE_HTTP);
  limits.max_output_bytes = 5'000'000;
  CHECK(stored.read(100, 0, {}, limits).outcome.status == KELP_OK);
  limits.max_ratio = 100;
  CHECK(stored.read(100, 0, {}, limits).outcome.status == KELP_USE_HTTP);
}

TEST_CASE("one turn of inflating is bounded") {
  const std::vector<std::byte> zeroes(20'000'000);
  const Stored stored(compressed(gzip_member(zeroes, 9)));
  ClientBuffer buffer(10);
  ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
  request.destination = buffer.bytes;
  std::vector<std::byte> memory(kelp::PrivateRead::memory_bytes(request.record));
  kelp::GzipInflater inflater;
  const auto read = std::make_unique<kelp::PrivateRead>();
  read->start(request, memory, inflater, {});
  Storage storage;
  while (read->next() == kelp::PrivateRead::Next::kIo) {
    read->io_done(storage.read(request.dat_fd, read->io()));
  }
  int turns = 0;
  while (read->next() == kelp::PrivateRead::Next::kInflate) {
    read->inflate(1 << 20);
    ++turns;
  }
  CHECK(turns >= 19);
  CHECK(read->outcome().status == KELP_OK);
}

TEST_CASE("data flagged as compressed that is no gzip comes as it is stored") {
  const auto data = pattern(500);
  const Stored stored(compressed(data));
  const Answer answer = stored.read(600, 3);
  CHECK(answer.bytes == part_of(data, 3, 600));
  CHECK((answer.outcome.flags & KELP_FLAG_INFLATED) == 0);
  CHECK(Stored(compressed({std::byte{0x1f}})).read(5).bytes.size() == 1);
}

TEST_CASE("a stat of a compressed needle tells both sizes and the stored checksum") {
  const auto plain = text(200'000);
  auto needle = compressed(gzip_member(plain));
  needle.name = "a.txt";
  const Stored stored(needle);
  ReadRequest request = request_for(stored.writer, stored.needle, stored.at);
  request.stat = true;
  const Answer answer = Stored::ask(request, 300);
  REQUIRE(answer.outcome.status == KELP_OK);
  kelp_stat facts;
  REQUIRE(answer.bytes.size() == sizeof facts + 5);
  std::memcpy(&facts, answer.bytes.data(), sizeof facts);
  CHECK(facts.total == plain.size());
  CHECK(facts.stored == needle.data.size());
  CHECK(facts.crc32c == kelp::crc32c(needle.data));
  for (std::size_t capacity = 1; capacity < answer.bytes.size(); ++capacity) {
    const Answer small = Stored::ask(request, capacity);
    REQUIRE(small.bytes == part_of(answer.bytes, 0, capacity));
    REQUIRE((small.outcome.flags & KELP_FLAG_TRUNCATED) != 0);
  }
}

TEST_CASE("read privately, TTL and chunk manifest count as they do straight") {
  const Stored expired({.data = pattern(5), .last_modified_s = 1, .ttl = kelp::Ttl{1, 1}});
  CHECK(expired.read(10).outcome.status == KELP_EXPIRED);
  const Stored manifest({.data = pattern(5), .extra_flags = kelp::kFlagChunkManifest});
  CHECK(manifest.read(10).outcome.status == KELP_USE_HTTP);
  const Stored packed({.data = gzip_member(pattern(5)),
                       .extra_flags = kelp::kFlagChunkManifest | kelp::kFlagCompressed});
  CHECK(packed.read(10).outcome.status == KELP_USE_HTTP);
}

TEST_CASE("read privately, a wrapped record is found 32 GiB further on") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  writer.put({.id = 1, .data = pattern(300, 1)});
  constexpr std::uint64_t kWrap = std::uint64_t{32} << 30;
  const auto plain = text(5000);
  const TestNeedle needle{
      .id = 2, .data = gzip_member(plain), .extra_flags = kelp::kFlagCompressed};
  const auto record = kelp::test::record_of(needle, 3);
  if (::pwrite(writer.dat_fd(), record.bytes.data(), record.bytes.size(), kWrap + 8) !=
      static_cast<ssize_t>(record.bytes.size())) {
    MESSAGE("skipped: no sparse file of 32 GiB here");
    return;
  }
  ReadRequest request = request_for(writer, needle, {8, record.body_bytes});
  request.wrap_bytes = kWrap;
  CHECK(Stored::ask(request, 6000).bytes == plain);
  CHECK(kelp::test::read_needle(request, 6000, 1).bytes == plain);
  request.record.needle = kelp::NeedleId{3};
  CHECK(Stored::ask(request, 6000).outcome.status == KELP_CORRUPT);
}
