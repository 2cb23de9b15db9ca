#include "sidecar/byte_range.h"

#include <doctest/doctest.h>

using kelp::sidecar::ByteRange;
using kelp::sidecar::parse_byte_range;
using Kind = ByteRange::Kind;

namespace {

void check_part(std::string_view header, std::uint64_t begin, std::uint64_t end) {
  CAPTURE(header);
  const ByteRange range = parse_byte_range(header, 100);
  REQUIRE(range.kind == Kind::kPart);
  CHECK(range.begin == begin);
  CHECK(range.end == end);
}

}  // namespace

TEST_CASE("a part is cut to what there is") {
  check_part("bytes=0-0", 0, 1);
  check_part("bytes=10-", 10, 100);
  check_part("bytes=10-1000", 10, 100);
  check_part("bytes=-10", 90, 100);
  check_part("bytes=-1000", 0, 100);
  check_part("bytes=-0", 100, 100);
  check_part("bytes= 1 - 2 ", 1, 3);
  check_part("bytes=0-18446744073709551615", 0, 100);
}

TEST_CASE("what no part can be is refused") {
  for (const char* header :
       {"bytes=100-", "bytes=5-4", "bytes=x-", "bytes=1-x", "bytes=-", "lines=0-1", "bytes",
        "bytes=1", "bytes=1-2-3", "bytes=--1", "bytes=18446744073709551616-"}) {
    CAPTURE(header);
    CHECK(parse_byte_range(header, 100).kind == Kind::kUnsatisfiable);
  }
}

TEST_CASE("no range, and several, mean the whole") {
  for (const char* header : {"", "bytes=", "bytes=0-1,2-3"}) {
    CHECK(parse_byte_range(header, 100).kind == Kind::kNone);
  }
}
