#include "tools/units.h"

#include <doctest/doctest.h>

#include <cstdint>

TEST_CASE("bytes keep four digits at most") {
  CHECK(kelp::human_bytes(0) == "0 B");
  CHECK(kelp::human_bytes(1023) == "1023 B");
  CHECK(kelp::human_bytes(1024) == "1.0 KiB");
  CHECK(kelp::human_bytes(1048575) == "1.0 MiB");
  CHECK(kelp::human_bytes(1536) == "1.5 KiB");
  CHECK(kelp::human_bytes(UINT64_MAX) == "16.0 EiB");
}

TEST_CASE("a number has as many digits behind the point as asked for") {
  CHECK(kelp::fixed(1.25, 0) == "1");
  CHECK(kelp::fixed(12.345678, 3) == "12.346");
  CHECK(kelp::fixed(1e300, 2).size() < 64);
}

TEST_CASE("durations keep their two largest units") {
  CHECK(kelp::human_duration(0) == "0 s");
  CHECK(kelp::human_duration(59) == "59 s");
  CHECK(kelp::human_duration(60) == "1 min");
  CHECK(kelp::human_duration(301) == "5 min 1 s");
  CHECK(kelp::human_duration(3600 + 59) == "1 h");
  CHECK(kelp::human_duration(2 * 86400 + 3 * 3600) == "2 d 3 h");
}

TEST_CASE("times are UTC, and damage does not break them") {
  CHECK(kelp::human_time(0) == "-");
  CHECK(kelp::human_time(1700000000) == "2023-11-14 22:13:20 UTC");
  CHECK(kelp::human_time(UINT64_MAX) == "18446744073709551615 s after 1970");
}

TEST_CASE("a TTL is shown in the unit it was given in") {
  CHECK(kelp::human_ttl(0) == "none");
  CHECK(kelp::human_ttl(90) == "90 min");
  CHECK(kelp::human_ttl(180) == "3 h");
  CHECK(kelp::human_ttl(4320) == "3 d");
}
