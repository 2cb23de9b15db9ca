#include "control/http_answer.h"

#include <doctest/doctest.h>

#include <string>

using kelp::HttpAnswerParser;
using kelp::HttpHead;
using State = HttpAnswerParser::State;

namespace {

struct Answer {
  State state = State::kMore;
  int heads = 0;
  int status = 0;
  std::string length;
  std::string body;
  std::string error;
  std::size_t left = 0;  // bytes nobody took
  bool keeps = false;
};

/// Offers `text` in pieces of `piece` bytes, and what was left of them again.
Answer parse(const std::string& text, std::size_t piece, bool of_head = false, bool ends = false,
             std::size_t most = SIZE_MAX) {
  Answer answer;
  HttpAnswerParser parser;
  parser.expect({[&](const HttpHead& head) {
                   ++answer.heads;
                   answer.status = head.status();
                   answer.length = std::string(head.header("content-LENGTH"));
                   return true;
                 },
                 [&](std::span<const std::byte> part) {
                   answer.body.append(reinterpret_cast<const char*>(part.data()), part.size());
                   return answer.body.size() <= most;
                 }},
                of_head);
  std::string unread;
  std::size_t offered = 0;
  while (answer.state == State::kMore && offered < text.size()) {
    unread += text.substr(offered, piece);
    offered = std::min(offered + piece, text.size());
    std::size_t taken = 0;
    answer.state = parser.take(std::as_bytes(std::span(unread)), taken);
    REQUIRE(taken <= unread.size());
    unread.erase(0, taken);
  }
  if (answer.state == State::kMore && ends) answer.state = parser.take_end();
  answer.left = unread.size() + text.size() - offered;
  answer.error = parser.error();
  if (answer.state == State::kDone) answer.keeps = parser.may_keep_connection();
  return answer;
}

constexpr std::size_t kPieces[] = {1, 2, 3, 7, 64, 1 << 20};

}  // namespace

TEST_CASE("an answer is the same in whatever pieces it comes") {
  for (const std::size_t piece : kPieces) {
    CAPTURE(piece);
    const Answer plain =
        parse("HTTP/1.1 206 Partial Content\r\nContent-Length: 5\r\n\r\nhello", piece);
    CHECK(plain.state == State::kDone);
    CHECK(plain.status == 206);
    CHECK(plain.length == "5");
    CHECK(plain.body == "hello");
    CHECK(plain.keeps);
    const Answer chunked = parse(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n",
        piece);
    CHECK(chunked.state == State::kDone);
    CHECK(chunked.body == "hello");
    CHECK(chunked.keeps);
    const Answer empty =
        parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", piece);
    CHECK(empty.state == State::kDone);
    CHECK(empty.body.empty());
    const Answer closed = parse("HTTP/1.0 200 OK\r\n\r\nhello", piece, false, true);
    CHECK(closed.state == State::kDone);
    CHECK(closed.body == "hello");
    CHECK_FALSE(closed.keeps);
    for (const Answer& each : {plain, chunked, closed}) {
      CHECK(each.heads == 1);
      CHECK(each.left == 0);
    }
  }
}

TEST_CASE("of a HEAD no body is expected, and none is there of 204 and 304") {
  for (const std::size_t piece : kPieces) {
    CAPTURE(piece);
    const Answer head = parse("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", piece, true);
    CHECK(head.state == State::kDone);
    CHECK(head.length == "1000");
    CHECK(parse("HTTP/1.1 204 No Content\r\n\r\n", piece).state == State::kDone);
    CHECK(parse("HTTP/1.1 304 Not Modified\r\n\r\n", piece).state == State::kDone);
  }
}

TEST_CASE("what comes behind an answer is not taken") {
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  const Answer twice = parse(answer + answer, 1 << 20);
  CHECK(twice.state == State::kDone);
  CHECK(twice.body == "ok");
  CHECK(twice.left == answer.size());
}

TEST_CASE("interim answers are passed over, but not for ever") {
  const std::string interim = "HTTP/1.1 100 Continue\r\n\r\n";
  const std::string answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
  for (const std::size_t piece : kPieces) {
    const Answer after =
        parse(interim + "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + answer, piece);
    CHECK(after.state == State::kDone);
    CHECK(after.heads == 1);
    CHECK(after.status == 200);
    CHECK(after.length == "2");
    CHECK(after.body == "ok");
    std::string many;
    for (int i = 0; i < 20; ++i) many += interim;
    CHECK(parse(many + answer, piece).state == State::kBroken);
    CHECK(parse("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", piece).state ==
          State::kBroken);
  }
}

TEST_CASE("what is no answer is said to be none") {
  for (const char* text : {
           "\x01\x02\x03\x04 garbage\r\n\r\n",
           "ICY 200 OK\r\n\r\n",
           "HTTP/1.1 2000 OK\r\n\r\n",
           "HTTP/1.1 OK\r\n\r\n",
           "HTTP/1.1 020 OK\r\n\r\nbody",
           "HTTP/1.1 099 OK\r\nContent-Length: 4\r\n\r\nbody",
           "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
           "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
           "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
           "HTTP/1.1 200 OK\r\nBad Name: x\r\n\r\n",
           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n",
       }) {
    for (const std::size_t piece : kPieces) {
      CAPTURE(text);
      CAPTURE(piece);
      const Answer none = parse(text, piece);
      CHECK(none.state == State::kBroken);
      CHECK_FALSE(none.error.empty());
    }
  }
}

TEST_CASE("an end in the middle is no end") {
  const std::string text = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
  for (std::size_t bytes = 1; bytes < text.size(); ++bytes) {
    CAPTURE(bytes);
    CHECK(parse(text.substr(0, bytes), 1 << 20, false, true).state == State::kBroken);
  }
}

TEST_CASE("a head has its limit, and a body that of its receiver") {
  const std::string large = "X-Pair: " + std::string(1000, 'x') + "\r\n";
  std::string head = "HTTP/1.1 200 OK\r\n";
  for (int i = 0; i < 100; ++i) head += large;
  CHECK(parse(head + "Content-Length: 2\r\n\r\nok", 4096).body == "ok");
  for (int i = 0; i < 200; ++i) head += large;
  CHECK(parse(head, 4096).state == State::kBroken);
  CHECK(parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 1, false, false, 3).state ==
        State::kRefused);
}
