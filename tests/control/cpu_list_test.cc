#include "control/cpu_list.h"

#include <doctest/doctest.h>

#include <string>

using kelp::parse_cpu_list;

TEST_CASE("CPU lists are numbers and ranges in the order given") {
  CHECK(parse_cpu_list("1") == std::vector{1});
  CHECK(parse_cpu_list("3,1") == std::vector{3, 1});
  CHECK(parse_cpu_list("2-4,0") == std::vector{2, 3, 4, 0});
  CHECK(parse_cpu_list("1023") == std::vector{1023});
}

TEST_CASE("what is not a CPU list is refused") {
  for (const char* text : {"", ",", "1,", ",1", "-1", "1-", "3-2", "1024", "a", "1 ,2", "1--2",
                           "99999999999", "0x1"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_cpu_list(text));
  }
  std::string endless;
  for (int i = 0; i < 100000; ++i) endless += "0-1023,";
  CHECK_FALSE(parse_cpu_list(endless + "1"));
}
