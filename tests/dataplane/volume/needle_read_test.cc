// Plain needles straight into the client's memory, whatever the storage answers and the record
// says.
#include "dataplane/volume/needle_read.h"

#include <doctest/doctest.h>

#include <cstring>
#include <ctime>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"
#include "support/gzip_writer.h"
#include "support/read_driver.h"
#include "support/stored_needle.h"
#include "support/volume_writer.h"

using kelp::NeedleLocation;
using kelp::NeedleRead;
using kelp::OffsetWidth;
using kelp::ReadRequest;
using kelp::test::flip_byte;
using kelp::test::part_of;
using kelp::test::pattern;
using kelp::test::read_needle;
using kelp::test::ReadResult;
using kelp::test::request_for;
using kelp::test::Storage;
using kelp::test::Stored;
using kelp::test::TempDir;
using kelp::test::TestNeedle;
using kelp::test::VolumeWriter;

namespace {

constexpr std::uint8_t kVersions[] = {1, 2, 3};
constexpr std::uint16_t kWholeFlags = KELP_FLAG_CRC_VERIFIED;

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

/// A record with this body, byte for byte, and a checksum that fits no data.
NeedleLocation put_raw_body(VolumeWriter& writer, const TestNeedle& needle,
                            const std::vector<std::byte>& body) {
  std::vector<std::byte> record;
  kelp::test::append_be(record, needle.cookie, 4);
  kelp::test::append_be(record, needle.id, 8);
  kelp::test::append_be(record, body.size(), 4);
  record.insert(record.end(), body.begin(), body.end());
  const auto size = static_cast<std::int32_t>(body.size());
  record.resize(kelp::record_bytes(size, writer.options().version), std::byte{0xff});
  const NeedleLocation at{writer.dat_end(), size};
  REQUIRE(::pwrite(writer.dat_fd(), record.data(), record.size(),
                   static_cast<off_t>(at.offset_bytes)) == static_cast<ssize_t>(record.size()));
  return at;
}

}  // namespace

TEST_CASE("a whole needle arrives whatever its size, its fields and the guess") {
  for (const std::uint8_t version : kVersions) {
    for (const std::size_t name_bytes : {0, 1, 200}) {
      for (const std::size_t length :
           {0, 1, 2, 7, 8, 9, 10, 100, 204, 205, 206, 607, 608, 609, 4096}) {
        const Stored stored({.data = pattern(length), .name = std::string(name_bytes, 'n')},
                            version);
        for (const std::uint32_t guess : {0, 1, 2, 8, 202, 203, 204, 608}) {
          CAPTURE(version);
          CAPTURE(name_bytes);
          CAPTURE(length);
          CAPTURE(guess);
          const ReadResult result = stored.read(length + 50, 0, guess);
          REQUIRE(result.outcome.status == KELP_OK);
          REQUIRE(result.bytes == stored.needle.data);
          REQUIRE(result.outcome.flags == kWholeFlags);
          REQUIRE(result.outcome.total_bytes == length);
        }
      }
    }
  }
}

TEST_CASE("the second read of alike needles takes one system call") {
  const Stored stored({.data = pattern(5000), .name = "a name", .last_modified_s = 5});
  std::atomic<std::uint32_t> guess{0};
  for (const int expected_reads : {2, 1}) {
    kelp::test::ClientBuffer buffer(6000);
    ReadRequest request = stored.request();
    request.destination = buffer.bytes;
    NeedleRead read;
    Storage storage;
    REQUIRE(kelp::test::drive(read, request, guess, storage) == NeedleRead::Next::kDone);
    CHECK(storage.reads == expected_reads);
    CHECK(guess.load() == 1 + 1 + 6 + 5);
    CHECK(read.whole());
  }
}

TEST_CASE("every buffer size gets its part, and says what is missing") {
  for (const std::uint8_t version : kVersions) {
    const Stored stored({.data = pattern(60), .name = "name"}, version);
    for (std::size_t capacity = 1; capacity <= 64; ++capacity) {
      for (const std::uint32_t guess : {0, 6, 20, 60, 66}) {
        CAPTURE(capacity);
        CAPTURE(guess);
        const ReadResult result = stored.read(capacity, 0, guess);
        REQUIRE(result.outcome.status == KELP_OK);
        REQUIRE(result.bytes == part_of(stored.needle.data, 0, capacity));
        REQUIRE(result.outcome.total_bytes == 60);
        REQUIRE(((result.outcome.flags & KELP_FLAG_TRUNCATED) != 0) == (capacity < 60));
      }
    }
  }
}

TEST_CASE("every range of a small needle is the right one, and beyond its end is refused") {
  for (const std::uint8_t version : kVersions) {
    for (const std::size_t length : {1, 2, 9, 24}) {
      const Stored stored({.data = pattern(length), .name = "n"}, version);
      for (std::uint64_t offset = 0; offset <= length + 2; ++offset) {
        for (std::size_t capacity = 1; capacity <= length + 2; ++capacity) {
          CAPTURE(length);
          CAPTURE(offset);
          CAPTURE(capacity);
          const ReadResult result = stored.read(capacity, offset);
          REQUIRE(result.outcome.total_bytes == length);
          if (offset > length) {
            REQUIRE(result.outcome.status == KELP_RANGE);
            continue;
          }
          REQUIRE(result.outcome.status == KELP_OK);
          REQUIRE(result.bytes == part_of(stored.needle.data, offset, capacity));
          REQUIRE(((result.outcome.flags & KELP_FLAG_TRUNCATED) != 0) ==
                  (offset + capacity < length));
          const bool all = offset == 0 && capacity >= length;
          REQUIRE(((result.outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0) >= all);
        }
      }
      for (const std::uint64_t far : {std::uint64_t{1} << 32, std::uint64_t{1} << 63,
                                      UINT64_MAX - 8, UINT64_MAX - 1, UINT64_MAX}) {
        CHECK(stored.read(8, far).outcome.status == KELP_RANGE);
      }
    }
  }
}

TEST_CASE("a range that was not checked by the checksum does not say so") {
  const Stored stored({.data = pattern(100), .name = "n"});
  CHECK((stored.read(100, 1).outcome.flags & KELP_FLAG_CRC_VERIFIED) == 0);
  CHECK((stored.read(10, 0).outcome.flags & KELP_FLAG_CRC_VERIFIED) == 0);
}

TEST_CASE("short reads of any length give the same bytes") {
  for (const std::uint8_t version : kVersions) {
    const Stored stored({.data = pattern(300), .name = "name", .pairs = "{}"}, version);
    for (const std::size_t most : {1, 2, 3, 15, 16, 17, 19, 20, 21, 300, 319, 320, 321, 335}) {
      for (const std::uint64_t offset : {0, 1, 299, 300}) {
        for (const std::size_t capacity : {1, 299, 300, 400}) {
          CAPTURE(most);
          CAPTURE(offset);
          CAPTURE(capacity);
          const ReadResult result =
              read_needle(stored.request(offset), capacity, 9, {.most_bytes_per_read = most});
          REQUIRE(result.outcome.status == KELP_OK);
          REQUIRE(result.bytes == part_of(stored.needle.data, offset, capacity));
        }
      }
    }
  }
}

TEST_CASE("large needles arrive in slices, and the checksum covers them all") {
  for (const std::size_t length : {std::size_t{256} * 1024, std::size_t{256} * 1024 + 1,
                                   std::size_t{1} << 20, (std::size_t{1} << 20) + 12345}) {
    const Stored stored({.data = pattern(length), .mime = "x/y"});
    const ReadResult whole = stored.read(length + 10);
    REQUIRE(whole.outcome.status == KELP_OK);
    CHECK(whole.bytes == stored.needle.data);
    CHECK(whole.outcome.flags == kWholeFlags);
    const ReadResult part = stored.read(600'000, 1000);
    REQUIRE(part.outcome.status == KELP_OK);
    CHECK(part.bytes == part_of(stored.needle.data, 1000, 600'000));
    CHECK((part.outcome.flags & KELP_FLAG_CRC_VERIFIED) == 0);

    flip_byte(stored, 20 + length - 3);
    CHECK(stored.read(length).outcome.status == KELP_CORRUPT);
    flip_byte(stored, 20 + length - 3);
    CHECK(stored.read(length).outcome.status == KELP_OK);
  }
}

TEST_CASE("errors and ends of file end the read, at each of its steps") {
  const Stored small({.data = pattern(100)});
  const Stored large({.data = pattern(700'000)});
  for (const Stored* stored : {&small, &large}) {
    const int steps = read_needle(stored->request(1), 700'000, 8).reads;
    for (int step = 0; step < steps; ++step) {
      CAPTURE(step);
      const auto with = [&](std::int64_t result) {
        return read_needle(stored->request(1), 700'000, 8, {.fail_with = result, .fail_at = step});
      };
      CHECK(with(-EIO).outcome.status == KELP_CORRUPT);
      CHECK(with(-EFAULT).outcome.status == KELP_INVALID);
    }
  }
  for (const std::uint64_t kept : {0, 15, 16, 19, 20, 100, 120, 125, 132}) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {});
    const TestNeedle needle{.data = pattern(100)};
    const NeedleLocation at = writer.put(needle);
    writer.roll_back_dat(at.offset_bytes + kept);
    for (const std::uint64_t offset : {0, 1}) {
      CHECK(read_needle(request_for(writer, needle, at, offset), 100, 1).outcome.status ==
            KELP_CORRUPT);
    }
  }
}

TEST_CASE("a record without its padding, at the end of the file, is whole") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  const TestNeedle needle{.data = pattern(100)};
  const NeedleLocation at = writer.put(needle);
  writer.roll_back_dat(at.offset_bytes + 16 + static_cast<std::uint64_t>(at.body_bytes) + 12);
  CHECK(read_needle(request_for(writer, needle, at), 100, 1).bytes == needle.data);
}

TEST_CASE("another needle at the place is refused, also a neighbour of the same batch") {
  for (const std::uint8_t version : kVersions) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {.version = version});
    // One batch assignment: same cookie, same size, consecutive ids.
    const TestNeedle wanted{.id = 5, .data = pattern(100, 5)};
    const TestNeedle neighbour{.id = 6, .data = pattern(100, 6)};
    writer.put(wanted);
    const NeedleLocation other = writer.put(neighbour);
    for (const std::uint64_t offset : {0, 1}) {
      for (const std::size_t capacity : {50, 200}) {
        const auto result = read_needle(request_for(writer, wanted, other, offset), capacity, 1);
        CHECK(result.outcome.status == KELP_CORRUPT);
      }
    }
  }
}

TEST_CASE("a size that differs from the index is refused, a cookie that differs is named") {
  for (const std::uint8_t version : kVersions) {
    const Stored stored({.data = pattern(100)}, version);
    ReadRequest request = stored.request();
    request.record.location.body_bytes += 1;
    CHECK(read_needle(request, 200, 1).outcome.status == KELP_CORRUPT);
    request.record.location.body_bytes -= 2;
    CHECK(read_needle(request, 200, 1).outcome.status == KELP_CORRUPT);
    request = stored.request();
    request.record.cookie = kelp::Cookie{stored.needle.cookie ^ 1};
    CHECK(read_needle(request, 200, 1).outcome.status == KELP_WRONG_COOKIE);
    request.stat = true;
    CHECK(read_needle(request, 200, 1).outcome.status == KELP_WRONG_COOKIE);
  }
}

TEST_CASE("an empty needle answers to its cookie only") {
  for (const std::uint8_t version : kVersions) {
    const Stored stored({.data = {}, .checksum = 0xdeadbeef}, version);
    const ReadResult result = stored.read(10);
    CHECK(result.outcome.status == KELP_OK);
    CHECK(result.outcome.bytes == 0);
    CHECK(result.outcome.total_bytes == 0);
    CHECK(stored.read(10, 1).outcome.status == KELP_RANGE);
    ReadRequest request = stored.request();
    request.record.cookie = kelp::Cookie{1};
    CHECK(read_needle(request, 10, 1).outcome.status == KELP_WRONG_COOKIE);
  }
}

TEST_CASE("a masked checksum is right, any other is a matter for the private read") {
  for (const std::uint8_t version : kVersions) {
    const auto data = pattern(100);
    const Stored masked({.data = data, .checksum = kelp::masked_crc(kelp::crc32c(data))}, version);
    const ReadResult good = masked.read(100);
    CHECK(good.outcome.flags == kWholeFlags);
    CHECK_FALSE(good.privately);
    const Stored wrong({.data = data, .checksum = kelp::crc32c(data) ^ 1}, version);
    for (const std::uint32_t guess : {0, 1, 90}) {
      const ReadResult bad = wrong.read(100, 0, guess);
      CHECK(bad.privately);
      CHECK(bad.outcome.status == KELP_CORRUPT);
    }
  }
}

TEST_CASE("a client that writes into its buffer meanwhile still gets the stored bytes") {
  const Stored stored({.data = pattern(600'000)});
  kelp::test::ClientBuffer buffer(600'000);
  ReadRequest request = stored.request();
  request.destination = buffer.bytes;
  std::atomic<std::uint32_t> guess{1};
  NeedleRead read;
  read.start(request, guess);
  Storage storage;
  // The checksum of a slice is taken as it arrives: spoil each just before that.
  while (read.next() == NeedleRead::Next::kIo) {
    const std::int64_t got = storage.read(request.dat_fd, read.io());
    for (std::byte& byte : buffer.bytes) byte ^= std::byte{1};
    read.io_done(got);
  }
  REQUIRE(read.next() == NeedleRead::Next::kNeedsPrivateRead);
  CHECK(kelp::test::drive_private(read.request(), storage).status == KELP_OK);
  CHECK(buffer.first(600'000) == stored.needle.data);
}

TEST_CASE("bodies that no server writes are refused, whole, ranged and for stat") {
  for (const std::uint8_t version : {2, 3}) {
    for (std::size_t body_bytes = 1; body_bytes <= 8; ++body_bytes) {
      for (const std::byte fill : {std::byte{0xff}, std::byte{0}}) {
        TempDir dir;
        VolumeWriter writer(dir.path(), {.version = static_cast<std::uint8_t>(version)});
        const TestNeedle needle{.id = 3, .data = {}};
        const auto at = put_raw_body(writer, needle, std::vector<std::byte>(body_bytes, fill));
        for (const std::uint32_t guess : {0, 8, 608}) {
          for (const bool stat : {false, true}) {
            CAPTURE(body_bytes);
            ReadRequest request = request_for(writer, needle, at);
            request.stat = stat;
            const auto status = read_needle(request, 100, guess).outcome.status;
            // A data length of 0 and a byte of flags could be a record; its checksum is wrong then.
            if (stat && fill == std::byte{0} && body_bytes >= 5) continue;
            CHECK(status == KELP_CORRUPT);
          }
        }
      }
    }
  }
}

TEST_CASE("a data length that leaves no room for the flags, or lies, is refused") {
  for (const std::uint32_t data_bytes :
       {0u, 95u, 96u, 97u, 0x7fffffffu, 0xfffffffbu, 0xffffffffu}) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {});
    const TestNeedle needle{.id = 3, .data = {}};
    std::vector<std::byte> body;
    kelp::test::append_be(body, data_bytes, 4);
    body.resize(100, std::byte{0x02});  // flags: a name; its length: 2
    const auto at = put_raw_body(writer, needle, body);
    for (const std::uint64_t offset : {0, 1}) {
      for (const std::uint32_t guess : {0, 8, 96}) {
        CAPTURE(data_bytes);
        const auto status =
            read_needle(request_for(writer, needle, at, offset), 200, guess).outcome.status;
        if (offset == 1 && data_bytes == 0) {
          CHECK(status == KELP_RANGE);
        } else if (offset == 1 && data_bytes == 95) {
          CHECK(status == KELP_OK);  // one flag byte that promises a name, and nothing behind it
        } else {
          CHECK(status == KELP_CORRUPT);
        }
      }
    }
  }
}

TEST_CASE("a field that runs past the body is refused") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  const TestNeedle needle{.id = 3, .data = {}};
  std::vector<std::byte> body;
  kelp::test::append_be(body, 10, 4);
  body.resize(14, std::byte{7});
  body.push_back(std::byte{kelp::kFlagHasName});
  body.push_back(std::byte{200});
  body.push_back(std::byte{'x'});
  const auto at = put_raw_body(writer, needle, body);
  for (const bool stat : {false, true}) {
    ReadRequest request = request_for(writer, needle, at, stat ? 0 : 2);
    request.stat = stat;
    CHECK(read_needle(request, 200, 3).outcome.status == KELP_CORRUPT);
  }
}

TEST_CASE("a needle whose own TTL has passed is expired, for stat and ranges too") {
  const kelp::Ttl minute{1, 1};
  const std::uint64_t now = now_ns();
  const auto status_of = [&](std::uint64_t append_at_ns, bool with_time, std::uint8_t version,
                             bool stat) {
    TestNeedle needle{.data = pattern(50), .ttl = minute, .append_at_ns = append_at_ns};
    if (with_time) needle.last_modified_s = 1;
    const Stored stored(needle, version);
    ReadRequest request = stored.request(stat ? 0 : 3);
    request.stat = stat;
    return read_needle(request, 200, 8).outcome.status;
  };
  for (const bool stat : {false, true}) {
    CHECK(status_of(now - 61'000'000'000, true, 3, stat) == KELP_EXPIRED);
    CHECK(status_of(now - 30'000'000'000, true, 3, stat) == KELP_OK);
    CHECK(status_of(now - 61'000'000'000, false, 3, stat) == KELP_OK);
    CHECK(status_of(now, true, 2, stat) == KELP_EXPIRED);  // version 2 has no append time
  }
}

TEST_CASE("a chunk manifest is for the server to read, its stat is ours") {
  const Stored stored({.data = pattern(50), .extra_flags = kelp::kFlagChunkManifest});
  CHECK(stored.read(100).outcome.status == KELP_USE_HTTP);
  CHECK(stored.read(10, 3).outcome.status == KELP_USE_HTTP);
  CHECK(read_needle(stored.stat_request(), 200, 8).outcome.status == KELP_OK);
}

TEST_CASE("compressed needles never come straight") {
  const auto plain = pattern(4000);
  const Stored stored(
      {.data = kelp::test::gzip_member(plain), .extra_flags = kelp::kFlagCompressed});
  for (const std::uint64_t offset : {0, 100, 3999, 4000}) {
    const ReadResult result = stored.read(5000, offset);
    CHECK(result.privately);
    CHECK(result.bytes == part_of(plain, offset, 5000));
  }
}

TEST_CASE("fields of 60 KB take the private way and come whole in a stat") {
  for (const std::uint8_t version : {2, 3}) {
    const std::string pairs(60'000, 'p');
    const Stored stored({.data = pattern(5000), .name = "n", .mime = "m/m", .pairs = pairs},
                        version);
    for (const std::uint32_t guess : {0, 8, 608}) {
      const ReadResult whole = stored.read(6000, 0, guess);
      CHECK(whole.privately);
      CHECK(whole.bytes == stored.needle.data);
      CHECK(whole.outcome.flags == kWholeFlags);
      CHECK(stored.read(7, 4998, guess).bytes == part_of(stored.needle.data, 4998, 7));
    }
    const ReadResult stat = read_needle(stored.stat_request(), 100'000, 8);
    REQUIRE(stat.outcome.status == KELP_OK);
    REQUIRE(stat.bytes.size() == sizeof(kelp_stat) + 1 + 3 + pairs.size());
    kelp_stat facts;
    std::memcpy(&facts, stat.bytes.data(), sizeof facts);
    CHECK(facts.pairs_bytes == 60'000);
    CHECK(stat.bytes.back() == std::byte{'p'});
  }
}

TEST_CASE("a stat tells everything there is, cut to the buffer") {
  const Stored stored({.data = pattern(5000),
                       .name = "a.txt",
                       .mime = "x/y",
                       .last_modified_s = 1'700'000'000,
                       .ttl = kelp::Ttl{5, 6},
                       .pairs = R"({"k":"v"})",
                       .append_at_ns = now_ns()});
  const ReadResult full = read_needle(stored.stat_request(), 200, 8);
  REQUIRE(full.outcome.status == KELP_OK);
  CHECK(full.outcome.flags == 0);
  CHECK(full.outcome.total_bytes == 5000);
  kelp_stat facts;
  REQUIRE(full.bytes.size() == sizeof facts + 5 + 3 + 9);
  std::memcpy(&facts, full.bytes.data(), sizeof facts);
  CHECK(facts.total == 5000);
  CHECK(facts.stored == 5000);
  CHECK(facts.modified_s == 1'700'000'000);
  CHECK(facts.append_at_ns == stored.needle.append_at_ns);
  CHECK(facts.crc32c == kelp::crc32c(stored.needle.data));
  CHECK(facts.ttl_minutes == 5 * 365 * 24 * 60);
  CHECK(facts.flags == 0x3e);
  CHECK(facts.name_bytes == 5);
  CHECK(facts.mime_bytes == 3);
  CHECK(facts.pairs_bytes == 9);
  CHECK(facts.version == 3);
  const std::string rest(reinterpret_cast<const char*>(full.bytes.data()) + sizeof facts, 17);
  CHECK(rest == R"(a.txtx/y{"k":"v"})");

  for (std::size_t capacity = 1; capacity < full.bytes.size(); ++capacity) {
    const ReadResult cut = read_needle(stored.stat_request(), capacity, 8);
    REQUIRE(cut.outcome.status == KELP_OK);
    REQUIRE((cut.outcome.flags & KELP_FLAG_TRUNCATED) != 0);
    REQUIRE(cut.bytes == part_of(full.bytes, 0, capacity));
  }
}

TEST_CASE("a stat of empty and of version 1 needles has no fields") {
  for (const std::uint8_t version : kVersions) {
    for (const std::size_t length : {0, 10}) {
      const Stored stored({.data = pattern(length), .checksum = 0x12345678}, version);
      const ReadResult result = read_needle(stored.stat_request(), 200, 8);
      REQUIRE(result.outcome.status == KELP_OK);
      REQUIRE(result.bytes.size() == sizeof(kelp_stat));
      kelp_stat facts;
      std::memcpy(&facts, result.bytes.data(), sizeof facts);
      CHECK(facts.total == length);
      CHECK(facts.crc32c == (length == 0 ? 0 : 0x12345678));
      CHECK(facts.version == version);
    }
  }
}

TEST_CASE("a record that 4-byte offsets wrapped around is found 32 GiB further on") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  writer.put({.id = 1, .data = pattern(300, 1)});
  constexpr std::uint64_t kWrap = std::uint64_t{32} << 30;
  const TestNeedle needle{.id = 2, .data = pattern(500, 2)};
  const auto record = kelp::test::record_of(needle, 3);
  if (::pwrite(writer.dat_fd(), record.bytes.data(), record.bytes.size(), kWrap + 8) !=
      static_cast<ssize_t>(record.bytes.size())) {
    MESSAGE("skipped: no sparse file of 32 GiB here");
    return;
  }
  ReadRequest request = request_for(writer, needle, {8, record.body_bytes});
  CHECK(read_needle(request, 500, 1).outcome.status == KELP_CORRUPT);
  request.wrap_bytes = kWrap;
  for (const std::uint64_t offset : {0, 1, 499, 500}) {
    request.offset_bytes = offset;
    for (const std::size_t capacity : {1, 500, 600}) {
      const ReadResult result = read_needle(request, capacity, 1);
      REQUIRE(result.outcome.status == KELP_OK);
      CHECK(result.bytes == part_of(needle.data, offset, capacity));
    }
  }
  request.offset_bytes = 501;
  CHECK(read_needle(request, 10, 1).outcome.status == KELP_RANGE);

  // Whoever compares the location afterwards must find the one the index has.
  kelp::test::ClientBuffer buffer(600);
  request.destination = buffer.bytes;
  request.offset_bytes = 1;
  std::atomic<std::uint32_t> guess{1};
  NeedleRead read;
  Storage storage;
  kelp::test::drive(read, request, guess, storage);
  CHECK(read.request().record.location == request.record.location);

  // Neither here nor there.
  request.record.needle = kelp::NeedleId{77};
  CHECK(read_needle(request, 500, 1).outcome.status == KELP_CORRUPT);
}
