#include "sidecar/answer_head.h"

#include <doctest/doctest.h>

#include <array>
#include <string>

using namespace kelp::sidecar;

TEST_CASE("a head is a status line, lines and an empty one") {
  std::array<char, 128> room;
  AnswerHead head(room);
  head.status(206);
  head.line("Content-Length", std::uint64_t{12});
  head.line("X-Source", "kelp-local");
  const std::uint32_t bytes = head.end();
  CHECK(std::string(room.data(), bytes) ==
        "HTTP/1.1 206 Partial Content\r\nContent-Length: 12\r\nX-Source: kelp-local\r\n\r\n");
}

TEST_CASE("a line that does not fit is left out, and the end still fits") {
  std::array<char, 40> room;
  AnswerHead head(room);
  head.status(200);
  head.line("Content-Type", std::string(100, 'x'));
  head.line("A", std::string(16, 'y'));  // to the last byte
  head.line("B", "");
  const std::uint32_t bytes = head.end();
  CHECK(bytes == room.size());
  CHECK(std::string(room.data(), bytes) ==
        "HTTP/1.1 200 OK\r\nA: " + std::string(16, 'y') + "\r\n\r\n");
}
