#include "dataplane/volume/needle.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/volume/endian.h"
#include "support/hex_bytes.h"

using kelp::Cookie;
using kelp::NeedleId;
using kelp::NeedleMeta;
using kelp::Ttl;
using kelp::test::hex_bytes;

namespace {

using Bytes = std::vector<std::byte>;

kelp::NeedleHeader header_of(const Bytes& record) {
  return kelp::parse_needle_header(std::span(record).first<kelp::kNeedleHeaderBytes>());
}

kelp::NeedleTail tail_of(const Bytes& record, std::uint8_t version) {
  const auto body_bytes = static_cast<std::size_t>(header_of(record).body_bytes);
  return kelp::parse_needle_tail(std::span(record).subspan(kelp::kNeedleHeaderBytes + body_bytes),
                                 version);
}

/// The bytes after the data, to the end of the body, of a version 2 or 3 record.
std::span<const std::byte> meta_of(const Bytes& record) {
  const std::size_t data_bytes = kelp::load_be32(&record[16]);
  const auto body_bytes = static_cast<std::size_t>(header_of(record).body_bytes);
  return std::span(record).subspan(20 + data_bytes, body_bytes - 4 - data_bytes);
}

const Bytes kGoldenV3 = hex_bytes(
    "637037d6 0000000000000001 00000016 00000005 68656c6c6f 0e 05612e747874 00 006553f100 "
    "9a71bb4c 17979cfe362a0000 000000160000");
const Bytes kGoldenV3Full = hex_bytes(
    "637037d6 0000000000000001 00000026 00000005 68656c6c6f 3e 05612e747874 03782f79 006553f100 "
    "0503 0009 7b226b223a2276227d 9a71bb4c 17979cfe362a0000 000000260000");
const Bytes kGoldenV2 = hex_bytes(
    "637037d6 0000000000000001 00000011 00000005 68656c6c6f 0e 00 00 006553f100 9a71bb4c 000000");
const Bytes kGoldenV1 =
    hex_bytes("637037d6 0000000000000001 00000005 68656c6c6f 9a71bb4c 00000000000000");
const Bytes kTombstone =
    hex_bytes("637037d6 0000000000000001 00000000 9a71bb4c 17979cfe362a0001 00000000");

}  // namespace

TEST_CASE("padding is 1 to 8 bytes and never 0") {
  struct Row {
    std::int32_t body_bytes;
    std::uint32_t padding_bytes;
    std::uint64_t old_record_bytes;  // versions 1 and 2
    std::uint64_t v3_record_bytes;
  };
  for (const Row& row :
       {Row{0, 4, 24, 32}, Row{1, 3, 24, 32}, Row{4, 8, 32, 40}, Row{5, 7, 32, 40},
        Row{11, 1, 32, 40}, Row{12, 8, 40, 48}, Row{100, 8, 128, 136}, Row{1000, 4, 1024, 1032}}) {
    CAPTURE(row.body_bytes);
    for (const std::uint8_t version : {1, 2, 3}) {
      CHECK(kelp::padding_bytes(row.body_bytes, version) == row.padding_bytes);
      CHECK(kelp::record_bytes(row.body_bytes, version) ==
            (version == 3 ? row.v3_record_bytes : row.old_record_bytes));
    }
  }
  for (std::int32_t body_bytes = 0; body_bytes < 4096; ++body_bytes) {
    REQUIRE(kelp::padding_bytes(body_bytes, 3) >= 1);
    REQUIRE(kelp::padding_bytes(body_bytes, 3) <= 8);
    REQUIRE(kelp::record_bytes(body_bytes, 3) % 8 == 0);
  }
}

TEST_CASE("the largest body does not wrap the record's length") {
  CHECK(kelp::record_bytes(INT32_MAX, 3) == (std::uint64_t{1} << 31) + 32);
}

TEST_CASE("the tail is 4 bytes, 12 in version 3") {
  CHECK(kelp::tail_bytes(1) == 4);
  CHECK(kelp::tail_bytes(2) == 4);
  CHECK(kelp::tail_bytes(3) == 12);
}

TEST_CASE("a golden version 3 record decodes") {
  CHECK(header_of(kGoldenV3).cookie == Cookie{0x637037d6});
  CHECK(header_of(kGoldenV3).id == NeedleId{1});
  CHECK(header_of(kGoldenV3).body_bytes == 22);
  CHECK(kelp::record_bytes(22, 3) == kGoldenV3.size());

  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(meta_of(kGoldenV3), meta));
  CHECK(meta.flags == 0x0e);
  CHECK(meta.name == "a.txt");
  CHECK(meta.has(kelp::kFlagHasMime));
  CHECK(meta.mime.empty());
  CHECK(meta.last_modified_s == 1'700'000'000);
  CHECK_FALSE(meta.has(kelp::kFlagHasTtl));
  CHECK(meta.pairs.empty());

  CHECK(tail_of(kGoldenV3, 3).checksum == 0x9a71bb4c);
  CHECK(tail_of(kGoldenV3, 3).append_at_ns == 0x17979cfe362a0000);
  CHECK(kelp::crc32c(std::span(kGoldenV3).subspan(20, 5)) == 0x9a71bb4c);
}

TEST_CASE("a golden version 3 record with every optional field decodes") {
  CHECK(kelp::record_bytes(header_of(kGoldenV3Full).body_bytes, 3) == kGoldenV3Full.size());
  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(meta_of(kGoldenV3Full), meta));
  CHECK(meta.flags == 0x3e);
  CHECK(meta.name == "a.txt");
  CHECK(meta.mime == "x/y");
  CHECK(meta.last_modified_s == 1'700'000'000);
  CHECK(meta.ttl == Ttl{5, 3});
  CHECK(meta.pairs == R"({"k":"v"})");
  CHECK(tail_of(kGoldenV3Full, 3).append_at_ns == 0x17979cfe362a0000);
}

TEST_CASE("a golden version 2 record has no append time") {
  CHECK(kelp::record_bytes(header_of(kGoldenV2).body_bytes, 2) == kGoldenV2.size());
  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(meta_of(kGoldenV2), meta));
  CHECK(meta.has(kelp::kFlagHasName));
  CHECK(meta.name.empty());
  CHECK(meta.last_modified_s == 1'700'000'000);
  CHECK(tail_of(kGoldenV2, 2).checksum == 0x9a71bb4c);
  CHECK(tail_of(kGoldenV2, 2).append_at_ns == 0);
}

TEST_CASE("the body of a golden version 1 record is the data") {
  CHECK(header_of(kGoldenV1).body_bytes == 5);
  CHECK(kelp::record_bytes(5, 1) == kGoldenV1.size());
  CHECK(tail_of(kGoldenV1, 1).checksum == kelp::crc32c(std::span(kGoldenV1).subspan(16, 5)));
}

TEST_CASE("a tombstone has the shape of an empty needle: no body, 32 bytes in version 3") {
  CHECK(header_of(kTombstone).body_bytes == 0);
  CHECK(kelp::record_bytes(0, 3) == kTombstone.size());
  CHECK(tail_of(kTombstone, 3).checksum == 0x9a71bb4c);
  CHECK(tail_of(kTombstone, 3).append_at_ns == 0x17979cfe362a0001);
}

TEST_CASE("a damaged size is handed on as it is, negative too") {
  CHECK(header_of(hex_bytes("00000000 0000000000000000 ffffffff")).body_bytes == -1);
  CHECK(header_of(hex_bytes("00000000 0000000000000000 80000000")).body_bytes == INT32_MIN);
}

TEST_CASE("an optional field is looked for only while the body goes on") {
  NeedleMeta meta;
  CHECK(kelp::parse_needle_meta({}, meta));
  CHECK(meta.flags == 0);

  const Bytes flags_only = hex_bytes("ff");
  CHECK(kelp::parse_needle_meta(flags_only, meta));
  CHECK(meta.flags == 0xff);
  CHECK(meta.name.empty());

  const Bytes up_to_name = hex_bytes("3e 0161");
  CHECK(kelp::parse_needle_meta(up_to_name, meta));
  CHECK(meta.name == "a");
  CHECK(meta.last_modified_s == 0);

  const Bytes up_to_ttl = hex_bytes("3e 0161 00 006553f100 0503");
  CHECK(kelp::parse_needle_meta(up_to_ttl, meta));
  CHECK(meta.ttl == Ttl{5, 3});
  CHECK(meta.pairs.empty());
}

TEST_CASE("a field is left out only by its flag") {
  const Bytes mime_and_pairs = hex_bytes("24 0161 0002 7b7d");
  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(mime_and_pairs, meta));
  CHECK(meta.name.empty());
  CHECK(meta.mime == "a");
  CHECK(meta.pairs == "{}");
}

TEST_CASE("a length that runs past the body is damage") {
  for (const char* hex : {
           "02 01",           // a name of 1 byte, none there
           "02 ff 61",        //
           "06 00 02 61",     // MIME
           "08 00 65 53 f1",  // 4 of 5 bytes of last-modified
           "10 05",           // 1 of 2 bytes of TTL
           "20 00",           // 1 of 2 bytes of the pairs' length
           "20 0001",         //
           "20 ffff 7b7d",    //
           "3e 0161 0162 006553f100 0503 0003 7b7d",
       }) {
    CAPTURE(hex);
    NeedleMeta meta;
    CHECK_FALSE(kelp::parse_needle_meta(hex_bytes(hex), meta));
  }
}

TEST_CASE("bytes after the last field are ignored, as upstream ignores them") {
  const Bytes no_fields = hex_bytes("00 ffff");
  const Bytes name_only = hex_bytes("02 0161 ffff");
  NeedleMeta meta;
  CHECK(kelp::parse_needle_meta(no_fields, meta));
  CHECK(kelp::parse_needle_meta(name_only, meta));
  CHECK(meta.name == "a");
}

TEST_CASE("last-modified has 40 bits") {
  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(hex_bytes("08 ffffffffff"), meta));
  CHECK(meta.last_modified_s == 0xff'ffff'ffff);
}

TEST_CASE("parsing overwrites what a meta held before") {
  NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(meta_of(kGoldenV3Full), meta));
  REQUIRE(kelp::parse_needle_meta(hex_bytes("00"), meta));
  CHECK(meta.flags == 0);
  CHECK(meta.name.empty());
  CHECK(meta.pairs.empty());
  CHECK(meta.ttl == Ttl{});
  CHECK(meta.last_modified_s == 0);
}

TEST_CASE("random metadata is refused or yields views inside it") {
  std::mt19937_64 random(5);
  for (int i = 0; i < 200'000; ++i) {
    Bytes bytes(random() % 48);
    for (std::byte& byte : bytes)
      byte = static_cast<std::byte>(random() % (random() % 2 ? 8 : 256));
    NeedleMeta meta;
    if (!kelp::parse_needle_meta(bytes, meta)) continue;
    const auto* const begin = reinterpret_cast<const char*>(bytes.data());
    for (const std::string_view view : {meta.name, meta.mime, meta.pairs}) {
      if (view.empty()) continue;
      REQUIRE(view.data() >= begin);
      REQUIRE(view.data() + view.size() <= begin + bytes.size());
    }
  }
}

TEST_CASE("a TTL runs from the append time, and only with both flags set") {
  constexpr std::uint8_t kBoth = kelp::kFlagHasTtl | kelp::kFlagHasLastModified;
  constexpr std::uint64_t kMinuteNs = 60'000'000'000;
  constexpr std::uint64_t kAppended = 1'700'000'000'000'000'000;
  constexpr Ttl kThreeMinutes{3, 1};
  CHECK_FALSE(kelp::is_expired(kBoth, kThreeMinutes, kAppended, kAppended));
  CHECK_FALSE(kelp::is_expired(kBoth, kThreeMinutes, kAppended, kAppended + 3 * kMinuteNs - 1));
  CHECK(kelp::is_expired(kBoth, kThreeMinutes, kAppended, kAppended + 3 * kMinuteNs));
  CHECK_FALSE(kelp::is_expired(kelp::kFlagHasTtl, kThreeMinutes, kAppended, UINT64_MAX));
  CHECK_FALSE(kelp::is_expired(kelp::kFlagHasLastModified, kThreeMinutes, kAppended, UINT64_MAX));
  CHECK_FALSE(kelp::is_expired(kBoth, Ttl{0, 1}, kAppended, UINT64_MAX));
  CHECK_FALSE(kelp::is_expired(kBoth, Ttl{3, 0}, kAppended, UINT64_MAX));
  CHECK_FALSE(kelp::is_expired(kBoth, kThreeMinutes, kAppended, kAppended - kMinuteNs));
}

TEST_CASE("without an append time, as on versions 1 and 2, a needle with a TTL has expired") {
  constexpr std::uint8_t kBoth = kelp::kFlagHasTtl | kelp::kFlagHasLastModified;
  CHECK(kelp::is_expired(kBoth, Ttl{9, 6}, 0, 1'700'000'000'000'000'000));
}

TEST_CASE("a damaged append time does not wrap the TTL") {
  constexpr std::uint8_t kBoth = kelp::kFlagHasTtl | kelp::kFlagHasLastModified;
  constexpr std::uint64_t kNow = 1'700'000'000'000'000'000;
  CHECK(kelp::is_expired(kBoth, Ttl{255, 6}, UINT64_MAX, kNow));  // read as signed: before 1970
  CHECK_FALSE(kelp::is_expired(kBoth, Ttl{255, 6}, INT64_MAX, kNow));
}
