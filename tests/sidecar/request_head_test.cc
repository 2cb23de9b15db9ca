#include "sidecar/request_head.h"

#include <doctest/doctest.h>

#include <string>

using namespace kelp::sidecar;

namespace {

struct Parsed {
  explicit Parsed(std::string text) : bytes(std::move(text)) {
    head = parse_request_head(bytes, problem);
  }
  std::string bytes;
  const char* problem = "";
  std::optional<RequestHead> head;
};

}  // namespace

TEST_CASE("the request of a weed mount is taken in") {
  const Parsed parsed(
      "GET /read?file_id=3,01 HTTP/1.1\r\nHost: a:1\r\nUser-Agent: Go-http-client/1.1\r\n"
      "Accept-Encoding: gzip\r\nrange: bytes=0-1\r\nIF-NONE-MATCH: \"x\"\r\n\r\n");
  REQUIRE_MESSAGE(parsed.head, parsed.problem);
  CHECK(parsed.head->method == Method::kGet);
  CHECK(std::string(parsed.head->target.data(), parsed.head->target.size()) ==
        "/read?file_id=3,01");
  CHECK(parsed.head->keep_alive);
  CHECK(!parsed.head->has_body);
  CHECK(parsed.head->range == "bytes=0-1");
  CHECK(parsed.head->if_none_match == "\"x\"");
}

TEST_CASE("HTTP/1.0 closes unless it says otherwise, and needs no Host") {
  CHECK(!Parsed("GET / HTTP/1.0\r\n\r\n").head->keep_alive);
  CHECK(Parsed("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").head->keep_alive);
  CHECK(!Parsed("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").head->keep_alive);
}

TEST_CASE("a body is noticed, whatever announces it") {
  CHECK(Parsed("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n").head->has_body);
  CHECK(Parsed("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").head->has_body);
  CHECK(!Parsed("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").head->has_body);
}

TEST_CASE("what is no request is refused with a sentence") {
  for (const char* text :
       {"GET / HTTP/1.1\r\n\r\n", "GET /\r\n\r\n", "\r\n\r\n", "GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1\r\nHost: x\r\nbad line\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n folded\x01: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nRange: a\r\nRange: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x02\r\n\r\n"}) {
    CAPTURE(text);
    const Parsed parsed(text);
    CHECK(!parsed.head);
    CHECK(std::string(parsed.problem) != "");
  }
}

TEST_CASE("a header that goes on in the next line is refused as that, whichever it is") {
  for (const char* text : {"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer\r\n abc\r\n\r\n",
                           "GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=\r\n\t0-1\r\n\r\n",
                           "GET / HTTP/1.1\r\nHost: x\r\nAccept: a,\r\n \r\n\r\n",
                           "GET / HTTP/1.1\r\n Host: x\r\nAccept: a\r\n\r\n"}) {
    CAPTURE(text);
    const Parsed parsed(text);
    CHECK(!parsed.head);
    CHECK(parsed.problem ==
          std::string("a header line goes on in the next one, which HTTP gave up"));
  }
  CHECK(Parsed("GET / HTTP/1.1\r\nHost: x\r\nRange: \t bytes=0-1 \r\n\r\n").head->range ==
        "bytes=0-1");
}

TEST_CASE("the end of a head is found wherever the pieces were cut") {
  const std::string text = "GET / HTTP/1.0\r\n\r\nrest";
  CHECK(find_head_end(text, 0) == 18);
  for (std::size_t searched = 0; searched < 18; ++searched) {
    CAPTURE(searched);
    CHECK(find_head_end(text.substr(0, searched), 0) == 0);
    CHECK(find_head_end(text, searched) == 18);
  }
}
