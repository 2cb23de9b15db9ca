#include "control/byte_size.h"

#include <doctest/doctest.h>

using kelp::format_byte_size;
using kelp::parse_byte_size;

TEST_CASE("byte sizes are read with and without a unit") {
  CHECK(parse_byte_size("0") == 0u);
  CHECK(parse_byte_size("4096") == 4096u);
  CHECK(parse_byte_size("512B") == 512u);
  CHECK(parse_byte_size("64KiB") == 65536u);
  CHECK(parse_byte_size("64 MiB") == 64u << 20);
  CHECK(parse_byte_size("1TiB") == 1ull << 40);
}

TEST_CASE("what is not a byte size is refused") {
  for (const char* text : {"", " ", "MiB", "-1", "+1", "1.5GiB", "64MB", "64kb", "1  KiB", "1KiB ",
                           "0x10", "1 ", "1KiBKiB", "99999999999999999999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_byte_size(text));
  }
}

TEST_CASE("a byte size that does not fit 64 bits is refused") {
  CHECK(parse_byte_size("16777215TiB") == 16777215ull << 40);
  CHECK_FALSE(parse_byte_size("16777216TiB"));
}

TEST_CASE("byte sizes are shown in the largest exact unit") {
  CHECK(format_byte_size(0) == "0 B");
  CHECK(format_byte_size(1000) == "1000 B");
  CHECK(format_byte_size(262144) == "256 KiB");
  CHECK(format_byte_size(1ull << 40) == "1 TiB");
  CHECK(format_byte_size(1ull << 50) == "1024 TiB");
}
