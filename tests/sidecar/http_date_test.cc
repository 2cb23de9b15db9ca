#include "sidecar/http_date.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

using namespace kelp::sidecar;

namespace {

std::string written(std::int64_t unix_s) {
  std::array<char, kHttpDateBytes> text;
  write_http_date(unix_s, text);
  return {text.data(), text.size()};
}

}  // namespace

TEST_CASE("dates are written as RFC 9110 writes its example") {
  CHECK(written(784111777) == "Sun, 06 Nov 1994 08:49:37 GMT");
  CHECK(written(0) == "Thu, 01 Jan 1970 00:00:00 GMT");
  CHECK(written(951782399) == "Mon, 28 Feb 2000 23:59:59 GMT");
}

TEST_CASE("what is written is read again") {
  for (const std::int64_t unix_s : {0LL, 784111777LL, 951868800LL, 4102444800LL}) {
    CHECK(parse_http_date(written(unix_s)) == unix_s);
  }
}

TEST_CASE("other forms are no date") {
  for (const char* text : {"", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994",
                           "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 31 Feb 1994 08:49:37 GMT",
                           "Sun, 06 Nov 1994 24:49:37 GMT", "Sun, -6 Nov 1994 08:49:37 GMT"}) {
    CAPTURE(text);
    CHECK(!parse_http_date(text));
  }
}
