#include "dataplane/volume/vif.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <random>

#include "support/fixture_manifest.h"

using kelp::OffsetWidth;
using kelp::parse_vif;
using kelp::VolumeInfo;

namespace {

constexpr std::string_view kModern = R"({
  "files":  [],
  "version":  3,
  "replication":  "001",
  "bytesOffset":  5,
  "datFileSize":  "12303696",
  "expireAtSec":  "2079169373",
  "readOnly":  true,
  "ecShardConfig":  {
    "dataShards":  10, "parityShards":  4, "encodeTsNs":  "1795345348187808406",
    "blockSize":  "2097152"
  },
  "readOnlyCanDelete":  false
})";

const VolumeInfo kModernInfo{.tiered = false,
                             .version = 3,
                             .replication = "001",
                             .bytes_offset = OffsetWidth::kFive,
                             .dat_file_bytes = 12303696,
                             .read_only = true,
                             .ec = {.data_shards = 10, .parity_shards = 4, .block_bytes = 2097152},
                             .expire_at_s = 2079169373};

void check_refused(std::string_view text) {
  CAPTURE(text.substr(0, 80));
  const auto parsed = parse_vif(text);
  REQUIRE_FALSE(parsed);
  CHECK(parsed.error().what.starts_with("cannot use a .vif: "));
}

}  // namespace

TEST_CASE("a modern .vif is read in full") {
  CHECK(parse_vif(kModern).value() == kModernInfo);
}

TEST_CASE("an empty .vif says nothing") {
  CHECK(parse_vif("").value() == VolumeInfo{});
  CHECK(parse_vif("{}").value() == VolumeInfo{});
}

TEST_CASE("snake_case names and plain integers read the same") {
  CHECK(parse_vif(R"({"version":"3","replication":"001","bytes_offset":5,"dat_file_size":12303696,
                      "expire_at_sec":2079169373,"read_only":true,"ec_shard_config":
                      {"data_shards":10,"parity_shards":4,"block_size":2097152}})")
            .value() == kModernInfo);
}

TEST_CASE("the legacy spelling is understood") {
  const auto info = parse_vif(R"({"version":3,"BytesOffset":4,"DestroyTime":"77"})").value();
  CHECK(info.bytes_offset == OffsetWidth::kFour);
  CHECK(info.expire_at_s == 77);
}

TEST_CASE("null is the default") {
  CHECK(parse_vif(R"({"files":null,"version":null,"replication":null,"bytesOffset":null,
                      "readOnly":null,"ecShardConfig":null})")
            .value() == VolumeInfo{});
}

TEST_CASE("a width of 0 is unknown, and any but 0, 4 and 5 is refused") {
  CHECK(parse_vif(R"({"bytesOffset":0})").value().bytes_offset == OffsetWidth::kUnknown);
  CHECK(parse_vif(R"({"bytesOffset":4})").value().bytes_offset == OffsetWidth::kFour);
  check_refused(R"({"bytesOffset":3})");
  check_refused(R"({"bytesOffset":260})");
  check_refused(R"({"bytesOffset":4294967300})");
}

TEST_CASE("remote files mean a tiered volume") {
  CHECK(parse_vif(R"({"files":[{"backendType":"s3","backendId":"default","key":"7.dat",
                      "offset":"0","fileSize":"88","modifiedTime":"1","extension":".dat"}]})")
            .value()
            .tiered);
  CHECK_FALSE(parse_vif(R"({"files":[]})").value().tiered);
  check_refused(R"({"files":{}})");
  check_refused(R"({"files":"s3"})");
}

TEST_CASE("an unknown field is ignored, but not where it may move bytes") {
  CHECK(parse_vif(R"({"version":3,"comment":{"a":[1]}})").value().version == 3);
  check_refused(R"({"ecShardConfig":{"dataShards":10,"parityShards":4,"layout":2}})");
}

TEST_CASE("a field of the wrong type or range is refused") {
  for (const char* text :
       {R"({"version":true})", R"({"version":-1})", R"({"version":3.5})", R"({"version":"3x"})",
        R"({"version":""})", R"({"version":" 3"})", R"({"version":4294967296})",
        R"({"datFileSize":"18446744073709551616"})", R"({"datFileSize":18446744073709551616})",
        R"({"datFileSize":-1})", R"({"datFileSize":1e400})", R"({"datFileSize":[]})",
        R"({"replication":1})", R"({"readOnly":"true"})", R"({"readOnly":1})",
        R"({"ecShardConfig":[]})", R"({"ecShardConfig":{"dataShards":4294967296}})"}) {
    check_refused(text);
  }
  CHECK(parse_vif(R"({"datFileSize":"18446744073709551615"})").value().dat_file_bytes ==
        UINT64_MAX);
}

TEST_CASE("a field given twice is refused, in one spelling or in two") {
  check_refused(R"({"bytesOffset":4,"bytesOffset":5})");
  check_refused(R"({"bytesOffset":4,"bytes_offset":4})");
  check_refused(R"({"files":[],"files":[{}]})");
  check_refused(R"({"ecShardConfig":{"blockSize":"1","blockSize":"2"}})");
  CHECK(parse_vif(R"({"files":[{"key":"a"},{"key":"b"}]})").value().tiered);
}

TEST_CASE("a .vif cut anywhere but at 0 is refused") {
  for (std::size_t length = 1; length < kModern.size(); ++length) {
    REQUIRE_FALSE(parse_vif(kModern.substr(0, length)));
  }
}

TEST_CASE("text that is no JSON object is refused") {
  for (const char* text :
       {" ", "null", "3", "[]", "\"{}\"", "{", "}", "{}{}", "{},", "{}x", "{'version':3}",
        "{version:3}", "// comment\n{}", "{\"version\":03}", "{\"replication\":\"\xff\"}"}) {
    check_refused(text);
  }
  check_refused(std::string_view("{}\0", 3));
  check_refused(std::string(512, '\0'));
}

TEST_CASE("deep nesting and long text are refused without harm") {
  for (const std::size_t depth : {9u, 1000u, 100'000u}) {
    check_refused(R"({"x":)" + std::string(depth, '[') + std::string(depth, ']') + "}");
    check_refused(R"({"x":)" + std::string(depth, '['));
  }
  std::string objects;
  for (int i = 0; i < 100'000; ++i) objects += R"({"a":)";
  check_refused(objects);
  check_refused(std::string(kelp::kVifBytesMax + 1, ' '));
  check_refused(std::string(kelp::kVifBytesMax, '['));
}

TEST_CASE("a flipped byte never escapes as an exception") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20'000; ++i) {
    std::string text(kModern);
    text[random() % text.size()] = static_cast<char>(random());
    const auto parsed = parse_vif(text);
    if (!parsed) REQUIRE_FALSE(parsed.error().what.empty());
  }
}

TEST_CASE("the .vif of every fixture volume is read") {
  int read = 0;
  for (const std::string& family : kelp::test::fixture_families()) {
    const auto folder = kelp::test::fixtures_dir() / family / "vs";
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".vif") continue;
      CAPTURE(entry.path().string());
      const auto bytes = kelp::test::read_fixture(entry.path());
      const auto info = parse_vif({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
      REQUIRE(info);
      CHECK(info->version == 3);
      CHECK(info->bytes_offset == (family == "v4b" ? OffsetWidth::kFour : OffsetWidth::kFive));
      CHECK_FALSE(info->tiered);
      CHECK(info->read_only == entry.path().filename().string().starts_with("ro_"));
      ++read;
    }
  }
  CHECK(read == 20);
}
