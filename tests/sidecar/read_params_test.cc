#include "sidecar/read_params.h"

#include <doctest/doctest.h>

#include <string>

using namespace kelp;
using kelp::sidecar::parse_read_params;
using kelp::sidecar::Query;
using kelp::sidecar::ReadParams;

namespace {

struct Parsed {
  explicit Parsed(const std::string& query) : bytes("/read?" + query) {
    const char* why = "";
    const auto split = Query::parse(bytes, why);
    REQUIRE(split);
    params = parse_read_params(*split, problem);
  }
  std::string bytes;
  std::string problem;
  std::optional<ReadParams> params;
};

const FileId kFid{VolumeId{3}, NeedleId{1}, Cookie{0x637037d6}};

}  // namespace

TEST_CASE("the request of a weed mount is understood") {
  const Parsed parsed(
      "file_id=3,01637037d6&offset=512&size=131072&volume_server=http://127.0.0.1:8080");
  REQUIRE_MESSAGE(parsed.params, parsed.problem);
  CHECK(parsed.params->fid == kFid);
  CHECK(parsed.params->offset == 512);
  CHECK(parsed.params->size == 131072);
  CHECK(parsed.params->volume_server == "127.0.0.1:8080");
}

TEST_CASE("a needle is named in any form, and once") {
  for (const char* text :
       {"volume=3&needle=1&cookie=1668298710", "cookie=0x637037d6&needle=0x1&volume=0x3",
        "file_id=3%2C01637037d6", "file_id=3/01637037d6", "file_id=3,00637037d6_1"}) {
    CAPTURE(text);
    const Parsed parsed(text);
    REQUIRE_MESSAGE(parsed.params, parsed.problem);
    CHECK(parsed.params->fid == kFid);
    CHECK(parsed.params->size == 0);
  }
}

TEST_CASE("what makes no sense is refused with a sentence") {
  for (const char* text : {"",
                           "volume=3&needle=1",
                           "volume=3&cookie=1",
                           "needle=1&cookie=1",
                           "volume=-1&needle=1&cookie=1",
                           "volume=4294967296&needle=1&cookie=1",
                           "volume=3&needle=1&cookie=4294967296",
                           "volume=3&needle=18446744073709551616&cookie=1",
                           "volume=3&needle=1.0&cookie=1",
                           "volume=&needle=1&cookie=1",
                           "file_id=",
                           "file_id=3",
                           "file_id=x,01637037d6",
                           "file_id=3,01637037d6&volume=3",
                           "file_id=3,01637037d6&file_id=3,01637037d6",
                           "file_id=3,01637037d6&size=1&size=1",
                           "file_id=3,01637037d6&jwt=a&jwt=b",
                           "file_id=3,01637037d6&volume_server=a:1&volume_server=a:1",
                           "file_id=3,01637037d6&iterations=1&iterations=2",
                           "file_id=3,01637037d6&offset=-1",
                           "file_id=3,01637037d6&offset=",
                           "file_id=3,01637037d6&size=1k",
                           "file_id=3,01637037d6&size=0x10",
                           "file_id=3,01637037d6&size=99999999999999999999",
                           "file_id=3,01637037d6&offset=18446744073709551615&size=1",
                           "file_id=3,01637037d6&format=xml"}) {
    CAPTURE(text);
    const Parsed parsed(text);
    CHECK(!parsed.params);
    CHECK(!parsed.problem.empty());
  }
}

TEST_CASE("what is not known is nobody's business") {
  CHECK(Parsed("file_id=3,01637037d6&cache=no").params);
  CHECK(Parsed("file_id=3,01637037d6&cache=no&cache=yes&x&x").params);
}
