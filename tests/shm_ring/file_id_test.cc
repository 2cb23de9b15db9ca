#include "shm_ring/file_id.h"

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>

namespace {

using kelp::Cookie;
using kelp::FileId;
using kelp::format_file_id;
using kelp::NeedleId;
using kelp::NeedleKey;
using kelp::parse_file_id;
using kelp::parse_needle_key;
using kelp::parse_needle_path;
using kelp::VolumeId;

FileId file_id(std::uint32_t volume, std::uint64_t needle, std::uint32_t cookie) {
  return {VolumeId{volume}, NeedleId{needle}, Cookie{cookie}};
}

NeedleKey needle_key(std::uint64_t needle, std::uint32_t cookie) {
  return {NeedleId{needle}, Cookie{cookie}};
}

}  // namespace

TEST_CASE("a needle key splits before its last eight digits") {
  CHECK(parse_needle_key("01637037d6") == needle_key(0x1, 0x637037d6));
  CHECK(parse_needle_key("4ed4c8116e41") == needle_key(0x4ed4, 0xc8116e41));
  CHECK(parse_needle_key("4ed401116e41") == needle_key(0x4ed4, 0x01116e41));
  CHECK(parse_needle_key("ed400116e41") == needle_key(0xed4, 0x00116e41));
  CHECK(parse_needle_key("fed4c8114ed4c811f0116e41") == needle_key(0xfed4c8114ed4c811, 0xf0116e41));
  CHECK(parse_needle_key("123456789") == needle_key(0x1, 0x23456789));
  CHECK(parse_needle_key("123456789012345678901234") == needle_key(0x1234567890123456, 0x78901234));
}

TEST_CASE("a needle key takes capital hex digits") {
  CHECK(parse_needle_key("ABCD0000abcd") == needle_key(0xabcd, 0xabcd));
}

TEST_CASE("a needle key has 9 to 24 digits") {
  CHECK_FALSE(parse_needle_key(""));
  CHECK_FALSE(parse_needle_key("4ed4c811"));
  CHECK_FALSE(parse_needle_key("12345678"));
  CHECK(parse_needle_key("000000000"));
  CHECK(parse_needle_key(std::string(24, 'f')));
  CHECK_FALSE(parse_needle_key(std::string(25, '0')));
  CHECK_FALSE(parse_needle_key(std::string(1 << 20, '0')));
}

TEST_CASE("a needle key takes hex digits and nothing else") {
  for (const char* text :
       {"helloworld", " 12345678", "+12345678", "-12345678", "0x12345678", "1_12345678",
        "12345678 9", "1234567890x1", "1+2345678", "1 2345678", "01-37037d6", "1,23456789"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_needle_key(text));
  }
  CHECK_FALSE(parse_needle_key(std::string_view("01637037d6\0", 11)));
  CHECK_FALSE(parse_needle_key(std::string_view("0\0637037d6", 10)));
}

TEST_CASE("a delta is decimal and added to the needle id") {
  CHECK(parse_needle_path("01637037d6") == needle_key(1, 0x637037d6));
  CHECK(parse_needle_path("01637037d6_2") == needle_key(3, 0x637037d6));
  CHECK(parse_needle_path("01637037d6_0010") == needle_key(11, 0x637037d6));
  CHECK(parse_needle_path("0000000000_18446744073709551615") == needle_key(UINT64_MAX, 0));
}

TEST_CASE("an empty delta is a delta of 0") {
  CHECK(parse_needle_path("01637037d6_") == needle_key(1, 0x637037d6));
}

TEST_CASE("a delta that is not decimal or overflows is refused") {
  for (const char* text :
       {"01637037d6_x", "01637037d6_0x1", "01637037d6_+1", "01637037d6_-1", "01637037d6_ 1",
        "01637037d6_1 ", "01637037d6_1_1", "01637037d6__1", "_01637037d6", "12345678_1",
        "12345678_", "ffffffffffffffff00000000_1", "01637037d6_18446744073709551615",
        "01637037d6_18446744073709551616", "01637037d6_99999999999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_needle_path(text));
  }
}

TEST_CASE("every form of a file id a stock server takes is understood") {
  const FileId expected = file_id(3, 1, 0x637037d6);
  for (const char* text :
       {"3,01637037d6",          "/3,01637037d6",       "3,1637037d6",
        "3,01637037D6",          "/3,01637037d6.jpg",   "3,01637037d6.jpg",
        "3,01637037d6.",         "3,01637037d6_",       "3,00637037d6_1",
        "/3,00637037d6_1.jpg",   "/3/01637037d6",       "3/01637037d6",
        "/3/01637037d6.jpg",     "3/01637037d6.jpg",    "/3/01637037d6/a.jpg",
        "3/01637037d6/a.jpg",    "/3/01637037d6/",      "/3/01637037d6/a,b_c.tar.gz",
        "/3/00637037d6_1/a.jpg", "/3/00637037d6_1.jpg", "003,01637037d6"}) {
    CAPTURE(text);
    CHECK(parse_file_id(text) == expected);
  }
}

TEST_CASE("the known answers of SeaweedFS's own file id tests") {
  CHECK(parse_file_id("100,123456789") == file_id(100, 0x1, 0x23456789));
  CHECK(parse_file_id("100,123456789012345678901234") ==
        file_id(100, 0x1234567890123456, 0x78901234));
  CHECK(parse_file_id("100,abcd0000abcd") == file_id(100, 0xabcd, 0x0000abcd));
  CHECK_FALSE(parse_file_id("100,12345678"));
  CHECK_FALSE(parse_file_id("100, 12345678"));
  CHECK_FALSE(parse_file_id("100,1234567890123456789012345"));
}

TEST_CASE("a volume above 2^32-1 is refused, not truncated as upstream does") {
  CHECK(parse_file_id("4294967295,01637037d6") == file_id(4294967295, 1, 0x637037d6));
  CHECK_FALSE(parse_file_id("4294967296,01637037d6"));
  CHECK_FALSE(parse_file_id("4294967299,01637037d6"));
  CHECK_FALSE(parse_file_id("18446744073709551619,01637037d6"));
  CHECK_FALSE(parse_file_id("4294967299/01637037d6"));
}

TEST_CASE("shapes that upstream answers with 400 or a panic are refused") {
  for (const char* text : {
           "",                       // nothing
           "/",                      //
           ",",                      //
           ",01637037d6",            // no volume
           "3,",                     // no needle
           "3",                      //
           "/3",                     //
           "/3/",                    //
           "301637037d6",            // no separator
           "/3,01637037d6/a.jpg",    // two slashes: the volume is "3,01637037d6"
           "/3.1,01637037d6",        // a dot before the comma panics
           "/.3,01637037d6",         //
           "/3,.jpg",                // no needle before the extension
           "/3/.jpg",                //
           "/3,01637037d6.tar.gz",   // cut at the last dot: "01637037d6.tar"
           "/3/01637037d6.tar.gz",   //
           "/3/01637037d6.jpg/a",    // with a name, the needle keeps its dot
           "/3/01637037d6/a/b",      // four slashes
           "//3,01637037d6",         // an empty volume
           "/a/3/01637037d6/a.jpg",  //
           "3,4,01637037d6",         // two commas
           "3,01637037d6,",          //
           "3,01637037d6.a,b",       // the last comma is in the extension
           "+3,01637037d6",          //
           "-3,01637037d6",          //
           " 3,01637037d6",          //
           "0x3,01637037d6",         //
           "3_0,01637037d6",         //
           "3 ,01637037d6",          //
           "a,01637037d6",           //
           "%33,01637037d6",         // not percent-decoded here
           "3,01637037d6 ",          //
           "3,01637037d6\n",         //
           "3;01637037d6",           //
       }) {
    CAPTURE(text);
    CHECK_FALSE(parse_file_id(text));
  }
}

TEST_CASE("a NUL byte ends nothing") {
  CHECK_FALSE(parse_file_id(std::string_view("3,01637037d6\0", 13)));
  CHECK_FALSE(parse_file_id(std::string_view("3\0,01637037d6", 13)));
  CHECK_FALSE(
      parse_file_id(std::string_view("\0"
                                     "3,01637037d6",
                                     13)));
}

TEST_CASE("a file id of any length is judged without harm") {
  const std::string megabyte(1 << 20, '1');
  CHECK_FALSE(parse_file_id(megabyte));
  CHECK_FALSE(parse_file_id(megabyte + ",01637037d6"));
  CHECK_FALSE(parse_file_id("3," + megabyte));
  CHECK_FALSE(parse_file_id("3,01637037d6_" + megabyte));
  CHECK_FALSE(parse_file_id(std::string(1 << 20, '/')));
  CHECK(parse_file_id("3,01637037d6." + megabyte) == file_id(3, 1, 0x637037d6));
  CHECK(parse_file_id(std::string(1 << 20, '0') + "3,01637037d6") == file_id(3, 1, 0x637037d6));
}

TEST_CASE("formatting drops leading zero bytes, not digits, and never the cookie") {
  CHECK(format_file_id(file_id(3, 1, 0)) == "3,0100000000");
  CHECK(format_file_id(file_id(3, 0x123, 0)) == "3,012300000000");
  CHECK(format_file_id(file_id(7, 0x1234, 0)) == "7,123400000000");
  CHECK(format_file_id(file_id(3, 1, 0x637037d6)) == "3,01637037d6");
  CHECK(format_file_id(file_id(3, 0, 0x7037d6)) == "3,007037d6");
  CHECK(format_file_id(file_id(4294967295, UINT64_MAX, 0xABCDEF01)) ==
        "4294967295,ffffffffffffffffabcdef01");
}

TEST_CASE("what is formatted parses back, but for needle 0, which has too few digits") {
  CHECK_FALSE(parse_file_id(format_file_id(file_id(3, 0, 0x637037d6))));
  std::mt19937_64 random(1);
  for (int i = 0; i < 10'000; ++i) {
    const int shift = static_cast<int>(random() % 64);
    const FileId id = file_id(static_cast<std::uint32_t>(random()), (random() >> shift) | 1,
                              static_cast<std::uint32_t>(random()));
    REQUIRE(parse_file_id(format_file_id(id)) == id);
  }
}

TEST_CASE("random bytes are refused or yield a file id that round-trips") {
  constexpr std::string_view kLikely = "0123456789abcdefABCDEF,,__//..  +-x";
  std::mt19937_64 random(2);
  for (int i = 0; i < 100'000; ++i) {
    std::string text(random() % 40, '\0');
    const bool any_byte = random() % 4 == 0;
    for (char& c : text) {
      c = any_byte ? static_cast<char>(random()) : kLikely[random() % kLikely.size()];
    }
    const auto id = parse_file_id(text);
    if (id && id->needle != NeedleId{0}) REQUIRE(parse_file_id(format_file_id(*id)) == id);
  }
}
