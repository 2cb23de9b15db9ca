#include "sidecar/content_type.h"

#include <doctest/doctest.h>

using kelp::sidecar::content_type;

TEST_CASE("the stored type counts, then the name, then nothing") {
  CHECK(content_type("image/x-test", "a.png") == "image/x-test");
  CHECK(content_type("application/octet-stream", "a.PNG") == "image/png");
  CHECK(content_type("", "a.b.css") == "text/css; charset=utf-8");
  CHECK(content_type("", "png") == "application/octet-stream");
  CHECK(content_type("", "") == "application/octet-stream");
}

TEST_CASE("a stored type that would break a header is none") {
  CHECK(content_type("text/plain\r\nX-Evil: 1", "") == "application/octet-stream");
  CHECK(content_type("text/plain\n", "a.txt") == "text/plain; charset=utf-8");
}
