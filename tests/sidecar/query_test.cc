#include "sidecar/query.h"

#include <doctest/doctest.h>

#include <string>

using kelp::sidecar::parse_decimal;
using kelp::sidecar::parse_number;
using kelp::sidecar::Query;

namespace {

struct Parsed {
  explicit Parsed(std::string text) : bytes(std::move(text)), query(Query::parse(bytes, problem)) {}
  std::string bytes;
  const char* problem = "";
  std::optional<Query> query;
};

}  // namespace

TEST_CASE("a target is a path and parameters, decoded") {
  const Parsed parsed("/read?file_id=3%2C0163+x&b=&c&=d&&e=f=g");
  REQUIRE(parsed.query);
  CHECK(parsed.query->path() == "/read");
  CHECK(parsed.query->find("file_id") == "3,0163 x");
  CHECK(parsed.query->find("b") == "");
  CHECK(parsed.query->find("c") == "");
  CHECK(parsed.query->find("") == "d");
  CHECK(parsed.query->find("e") == "f=g");
  CHECK(!parsed.query->find("f"));
}

TEST_CASE("a path keeps its plus, and names are decoded, too") {
  const Parsed parsed("/a+b%20c?%66ile=1");
  REQUIRE(parsed.query);
  CHECK(parsed.query->path() == "/a+b c");
  CHECK(parsed.query->find("file") == "1");
}

TEST_CASE("the host of an absolute URI is not part of the path") {
  CHECK(Parsed("http://10.0.0.1:8081/health?x=1").query->path() == "/health");
  for (const char* text : {"http:///health", "http://host", "ftp://host/", "health", "*", ""}) {
    CAPTURE(text);
    const Parsed parsed(text);
    CHECK(!parsed.query);
    CHECK(std::string(parsed.problem) != "");
  }
}

TEST_CASE("a broken escape or a NUL is refused") {
  for (const char* text : {"/%", "/%4", "/%zz", "/a?b=%0", "/a?%=1", "/a?b=%00", "/%00"}) {
    CAPTURE(text);
    CHECK(!Parsed(text).query);
  }
}

TEST_CASE("a known name that is given twice is told, also when it is written differently") {
  constexpr std::array<std::string_view, 2> kKnown = {"x", "y"};
  CHECK(Parsed("/a?x=1&y=2&%78=3").query->repeated(kKnown) == "x");
  CHECK(Parsed("/a?z=1&x=2&z=3&y=4").query->repeated(kKnown).empty());
  CHECK(Parsed("/a?z=1&y=2&z=3&%79=4").query->repeated(kKnown) == "y");
}

TEST_CASE("more parameters than there is room for are refused") {
  std::string text = "/a?";
  for (int i = 0; i < 32; ++i) text += "p" + std::to_string(i) + "=1&";
  CHECK(Parsed(text).query);
  CHECK(!Parsed(text + "one=more").query);
}

TEST_CASE("numbers are digits and nothing else") {
  CHECK(parse_decimal("0") == 0);
  CHECK(parse_decimal("007") == 7);
  CHECK(parse_decimal("18446744073709551615") == UINT64_MAX);
  CHECK(parse_number("0x1F") == 31);
  CHECK(parse_number("0Xffffffffffffffff") == UINT64_MAX);
  for (const char* text : {"", "-1", "+1", " 1", "1 ", "1.0", "1e3", "18446744073709551616", "0x",
                           "0x-1", "0xg", "0x10000000000000000", "١"}) {
    CAPTURE(text);
    CHECK(!parse_number(text));
  }
  CHECK(!parse_decimal("0x10"));
}
