#include "dataplane/wire/frames.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "shm_ring/kelp.h"

using namespace kelp::wire;

namespace {

template <class Frame>
std::vector<std::byte> sealed(Frame frame, FrameKind kind) {
  seal(frame, kind);
  const auto bytes = std::as_bytes(std::span(&frame, 1));
  return {bytes.begin(), bytes.end()};
}

std::vector<std::byte> some_answer() {
  Answer answer;
  answer.slot = 3;
  answer.generation = 7;
  answer.bytes = 100;
  return sealed(answer, FrameKind::kAnswer);
}

constexpr FrameKind kKinds[] = {FrameKind::kHello,   FrameKind::kChallenge, FrameKind::kProof,
                                FrameKind::kWelcome, FrameKind::kRefused,   FrameKind::kRequest,
                                FrameKind::kAnswer,  FrameKind::kCancel,    FrameKind::kPing,
                                FrameKind::kPong,    FrameKind::kDrain};

}  // namespace

TEST_CASE("each kind of frame is found again at the front of a stream, and only when it is whole") {
  for (const FrameKind kind : kKinds) {
    CAPTURE(static_cast<int>(kind));
    std::vector<std::byte> stream(frame_bytes(kind), std::byte{0});
    REQUIRE(stream.size() >= sizeof(FrameHeader));
    REQUIRE(stream.size() <= kMostFrameBytes);
    seal(stream, kind);
    for (std::size_t bytes = 0; bytes < stream.size(); ++bytes) {
      CHECK(peek_frame(std::span(stream).first(bytes)).state == Peek::kMore);
    }
    stream.push_back(std::byte{0xff});
    const Peeked found = peek_frame(stream);
    CHECK(found.state == Peek::kFrame);
    CHECK(found.kind == kind);
    CHECK(found.bytes == stream.size() - 1);
  }
}

TEST_CASE("a frame with any bit turned is none, or is seen to lack something") {
  const std::vector<std::byte> good = some_answer();
  for (std::size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::vector<std::byte> bad = good;
    bad[bit / 8] ^= static_cast<std::byte>(1U << (bit % 8));
    bad.resize(kMostFrameBytes);
    CAPTURE(bit);
    CHECK(peek_frame(bad).state == Peek::kBroken);
  }
}

TEST_CASE("what is no frame is seen by its header alone") {
  FrameHeader header;
  header.kind = FrameKind{99};
  header.bytes = 64;
  CHECK(peek_frame(std::as_bytes(std::span(&header, 1))).state == Peek::kBroken);
  header.kind = FrameKind::kAnswer;
  for (const std::uint16_t bytes : {0, 7, 39, 41, 512, 65535}) {
    header.bytes = bytes;
    CHECK(peek_frame(std::as_bytes(std::span(&header, 1))).state == Peek::kBroken);
  }
  header.kind = FrameKind::kRequest;
  for (const std::uint16_t bytes : {63, 513}) {
    header.bytes = bytes;
    CHECK(peek_frame(std::as_bytes(std::span(&header, 1))).state == Peek::kBroken);
  }
}

TEST_CASE("a request carries its token, and comes back as it was") {
  Request request;
  request.slot = 5;
  request.generation = 9;
  request.kind = RequestKind::kStat;
  request.volume = 3;
  request.needle = 0x1122334455667788;
  request.cookie = 0xdeadbeef;
  request.offset_bytes = 1 << 20;
  request.length_bytes = 4096;
  request.timeout_us = 1000;
  std::array<std::byte, kMostFrameBytes> room;
  for (const std::size_t token_bytes : {std::size_t{0}, std::size_t{1}, kMostTokenBytes}) {
    const std::string token(token_bytes, 't');
    const auto frame = write_request(request, token, room);
    REQUIRE(frame.size() == sizeof request + token_bytes);
    const Peeked found = peek_frame(frame);
    REQUIRE(found.state == Peek::kFrame);
    const auto read = read_request(frame, 64, kMostSliceBytes);
    REQUIRE(read);
    CHECK(read->token == token);
    CHECK(read->request.slot == 5);
    CHECK(read->request.generation == 9);
    CHECK(read->request.kind == RequestKind::kStat);
    CHECK(read->request.needle == request.needle);
    CHECK(read->request.cookie == request.cookie);
    CHECK(read->request.offset_bytes == request.offset_bytes);
    CHECK(read->request.length_bytes == 4096);
    CHECK(read->request.timeout_us == 1000);
  }
  CHECK(write_request(request, std::string(kMostTokenBytes + 1, 't'), room).empty());
}

TEST_CASE("requests beyond what was granted are refused") {
  std::array<std::byte, kMostFrameBytes> room;
  const auto judge = [&](auto&& change) {
    Request request;
    request.length_bytes = 4096;
    change(request);
    const auto frame = write_request(request, "", room);
    return read_request(frame, 64, 8192).has_value();
  };
  CHECK(judge([](Request&) {}));
  CHECK(judge([](Request& r) { r.slot = 63; }));
  CHECK_FALSE(judge([](Request& r) { r.slot = 64; }));
  CHECK(judge([](Request& r) { r.length_bytes = 8192; }));
  CHECK_FALSE(judge([](Request& r) { r.length_bytes = 8193; }));
  CHECK_FALSE(judge([](Request& r) { r.length_bytes = 0; }));
  CHECK_FALSE(judge([](Request& r) { r.kind = RequestKind{2}; }));
  CHECK_FALSE(judge([](Request& r) { r.reserved = 1; }));
  CHECK_FALSE(judge([](Request& r) { r.reserved2 = 1; }));
  // A token that is shorter or longer than it says.
  Request request;
  request.length_bytes = 1;
  auto frame = write_request(request, "abc", room);
  CHECK_FALSE(read_request(frame.first(frame.size() - 1), 64, 8192));
}

TEST_CASE("answers that make no sense are refused") {
  const auto judge = [&](auto&& change) {
    Answer answer;
    change(answer);
    return read_answer(sealed(answer, FrameKind::kAnswer), 64).has_value();
  };
  CHECK(judge([](Answer&) {}));
  CHECK(judge([](Answer& a) { a.bytes = kMostSliceBytes; }));
  CHECK_FALSE(judge([](Answer& a) { a.bytes = kMostSliceBytes + 1; }));
  CHECK_FALSE(judge([](Answer& a) { a.slot = 64; }));
  CHECK_FALSE(judge([](Answer& a) { a.reserved = 1; }));
  CHECK(judge([](Answer& a) { a.status = KELP_NOT_FOUND; }));
  CHECK_FALSE(judge([](Answer& a) {
    a.status = KELP_NOT_FOUND;
    a.bytes = 1;
  }));
  for (const int status : {8, 15, 19, 23, 25, int{KELP_DISCONNECTED}, int{KELP_USAGE}, 255}) {
    CHECK_FALSE(judge([&](Answer& a) { a.status = static_cast<std::uint8_t>(status); }));
  }
}

TEST_CASE("what a peer calls itself is fit for a log line") {
  const char field[8] = {'a', '\n', '\x1b', 'b', '\0', 'c', 'd', 'e'};
  CHECK(printable(field) == "a??b");
  const char full[4] = {'a', 'b', 'c', 'd'};
  CHECK(printable(full) == "abcd");
}

TEST_CASE("what goes with an RDMA write says all of an answer, or the answer goes as a frame") {
  Answer answer;
  answer.slot = 0x1234;
  answer.generation = 0x56;
  answer.flags = KELP_FLAG_CRC_VERIFIED;
  answer.bytes = answer.total_bytes = 4096;
  const auto immediate = kelp::wire::immediate_of(answer);
  REQUIRE(immediate);
  CHECK(*immediate == 0x12345600);
  const Answer back = kelp::wire::answer_of(*immediate, answer.bytes);
  CHECK(back.slot == answer.slot);
  CHECK(back.generation == answer.generation);
  CHECK(back.status == answer.status);
  CHECK(back.flags == answer.flags);
  CHECK(back.bytes == answer.bytes);
  CHECK(back.total_bytes == answer.total_bytes);

  const auto goes_alone = [&](auto change) {
    Answer changed = answer;
    change(changed);
    return kelp::wire::immediate_of(changed).has_value();
  };
  CHECK_FALSE(goes_alone([](Answer& a) { a.total_bytes = 4097; }));  // a part
  CHECK_FALSE(goes_alone([](Answer& a) { a.bytes = 0; }));
  CHECK_FALSE(goes_alone([](Answer& a) { a.bytes = 0, a.total_bytes = 0; }));
  CHECK_FALSE(goes_alone([](Answer& a) { a.status = KELP_NOT_FOUND; }));
  CHECK_FALSE(goes_alone([](Answer& a) { a.flags = 0; }));
  CHECK_FALSE(goes_alone([](Answer& a) { a.flags |= KELP_FLAG_INFLATED; }));
}
