// What servers answer by HTTP, in pieces.
// Input: flags u8 (bit 0: of a HEAD, bit 1: the connection ends behind it), piece u8, then the
// bytes. Promises: whatever the pieces are, the same answers come of it; a head is told once and
// before any body; nothing is taken beyond what was offered; what is not complete is never done.
#include <algorithm>
#include <string>

#include "control/http_answer.h"
#include "fuzz/fuzz.h"

using namespace kelp;
using kelp::fuzz::must;
using State = HttpAnswerParser::State;

namespace {

struct Outcome {
  State state = State::kMore;
  int status = 0;
  std::string length;
  std::string body;
  bool operator==(const Outcome&) const = default;
};

Outcome parse(const std::string& text, std::size_t piece, bool of_head, bool ends) {
  Outcome outcome;
  int heads = 0;
  HttpAnswerParser parser;
  parser.expect({[&](const HttpHead& head) {
                   must(++heads == 1, "a head is told once");
                   outcome.status = head.status();
                   outcome.length = std::string(head.header("content-length"));
                   return true;
                 },
                 [&](std::span<const std::byte> part) {
                   must(heads == 1, "a body comes behind its head");
                   outcome.body.append(reinterpret_cast<const char*>(part.data()), part.size());
                   return true;
                 }},
                of_head);
  std::string unread;
  std::size_t offered = 0;
  while (outcome.state == State::kMore && offered < text.size()) {
    const std::size_t more = std::min(piece, text.size() - offered);
    unread.append(text, offered, more);
    offered += more;
    std::size_t taken = 0;
    outcome.state = parser.take(std::as_bytes(std::span(unread)), taken);
    must(taken <= unread.size(), "nothing is taken beyond what was offered");
    unread.erase(0, taken);
  }
  if (outcome.state == State::kMore && ends) outcome.state = parser.take_end();
  must(outcome.state != State::kRefused, "nobody refused it");
  if (outcome.state == State::kDone) {
    must(heads == 1 && outcome.status >= 200, "an answer has a head, and is final");
    must(!of_head || outcome.body.empty(), "a HEAD has no body");
  }
  if (outcome.state == State::kBroken) {
    must(!parser.error().empty(), "a refusal says why");
  }
  // What is wrong with a head may be seen sooner or later, as the pieces are.
  if (outcome.state != State::kDone) return {State::kMore, 0, "", ""};
  return outcome;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto flags = input.take<std::uint8_t>();
  const std::size_t piece = input.take<std::uint8_t>() + std::size_t{1};
  const std::string text = fuzz::text_of(input.rest());
  const bool of_head = (flags & 1) != 0;
  const bool ends = (flags & 2) != 0;
  const Outcome whole = parse(text, text.size() + 1, of_head, ends);
  must(parse(text, piece, of_head, ends) == whole, "pieces make no difference");
  return 0;
}
