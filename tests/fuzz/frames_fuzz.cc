// Bytes of a peer: frames, and both ends of a handshake.
// Input: mode u8 (1: each frame's check is mended, 2: keys, 4: to a gateway), piece u8, then bytes.
// Promises: no frame is longer than what was offered, or than 512; what is a frame is sealed;
// pieces make no difference; without the key nobody is welcome; a failed handshake has a sentence,
// and says one Refused at most; requests and answers that are taken keep to what was granted.
#include <algorithm>
#include <array>
#include <string>

#include "dataplane/wire/frames.h"
#include "dataplane/wire/handshake.h"
#include "fuzz/fuzz.h"
#include "shm_ring/kelp.h"

using namespace kelp;
using namespace kelp::wire;
using kelp::fuzz::must;

namespace {

constexpr std::uint16_t kSlots = 16;
constexpr std::uint32_t kSlice = 65536;

/// Gives each frame that has a kind the check it should have.
void mend(std::vector<std::byte>& bytes) {
  std::span<std::byte> left(bytes);
  while (left.size() >= sizeof(FrameHeader)) {
    const auto kind = copy_frame<FrameHeader>(left).kind;
    const std::size_t length = frame_bytes(kind);
    if (length == 0 || length > left.size()) return;
    seal(left.first(length), kind);
    left = left.subspan(length);
  }
}

void judge_frames(std::span<const std::byte> stream) {
  while (true) {
    const Peeked next = peek_frame(stream);
    if (next.state != Peek::kFrame) return;
    must(next.bytes <= stream.size() && next.bytes <= kMostFrameBytes,
         "a frame is there, and short");
    must(next.bytes >= frame_bytes(next.kind), "and whole");
    const auto frame = stream.first(next.bytes);
    std::vector<std::byte> copy(frame.begin(), frame.end());
    seal(copy, next.kind);
    must(std::ranges::equal(copy, frame), "a frame is sealed");
    if (next.kind == FrameKind::kRequest) {
      if (const auto read = read_request(frame, kSlots, kSlice)) {
        must(read->request.slot < kSlots && read->request.length_bytes - 1 < kSlice,
             "requests keep to what was granted");
        must(read->token.size() <= kMostTokenBytes, "tokens are short");
      }
    }
    if (next.kind == FrameKind::kAnswer) {
      if (const auto answer = read_answer(frame, kSlots)) {
        must(answer->slot < kSlots && answer->bytes <= kMostSliceBytes, "answers, too");
        must(answer->status == KELP_OK || answer->bytes == 0, "errors have no bytes");
      }
    }
    stream = stream.subspan(next.bytes);
  }
}

struct Outcome {
  Handshake::State state;
  std::vector<std::byte> said;
  bool operator==(const Outcome&) const = default;
};

Outcome talk(Handshake& handshake, std::span<const std::byte> bytes, std::size_t piece) {
  Outcome outcome{handshake.state(), handshake.take_output()};
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    outcome.state = handshake.feed(bytes.subspan(at, std::min(piece, bytes.size() - at)));
    const auto more = handshake.take_output();
    outcome.said.insert(outcome.said.end(), more.begin(), more.end());
    if (outcome.state != Handshake::State::kUnderWay) break;
  }
  must(outcome.said.size() <=
           sizeof(Hello) + sizeof(Proof) + sizeof(Challenge) + sizeof(Welcome) + sizeof(Refused),
       "little is said");
  if (outcome.state == Handshake::State::kFailed) {
    must(!handshake.failure().empty(), "a failure has a sentence");
  }
  return outcome;
}

Outcome run(std::uint8_t mode, std::span<const std::byte> bytes, std::size_t piece) {
  static const PeerKeys keys = PeerKeys::parse("1 00112233445566778899aabbccddeeff").value();
  static const PeerKeys none;
  const bool with_key = (mode & 2) != 0;
  Outcome outcome;
  if ((mode & 4) != 0) {
    GatewayHandshake gateway({.slots = kSlots}, with_key ? keys : none);
    outcome = talk(gateway, bytes, piece);
    if (outcome.state == Handshake::State::kDone) {
      const Agreement& agreed = gateway.agreement();
      must(agreed.slots > 0 && agreed.slots <= kSlots &&
               agreed.max_slice_bytes <= kMostSliceBytes &&
               agreed.target_worker < agreed.target_workers,
           "what is agreed upon makes sense");
    }
  } else {
    TargetHandshake target({.slots = kSlots}, with_key ? keys : none);
    outcome = talk(target, bytes, piece);
    if (outcome.state == Handshake::State::kDone) {
      must(target.agreement().slots > 0 && target.agreement().slots <= kSlots, "slots are granted");
    }
  }
  must(!with_key || outcome.state != Handshake::State::kDone, "without the key nobody is welcome");
  return outcome;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto mode = input.take<std::uint8_t>();
  const std::size_t piece = input.take<std::uint8_t>() + std::size_t{1};
  std::vector<std::byte> bytes = fuzz::exact_copy(input.rest());
  if ((mode & 1) != 0) mend(bytes);
  judge_frames(bytes);
  const Outcome whole = run(mode, bytes, bytes.size() + 1);
  must(run(mode, bytes, piece) == whole, "pieces make no difference");
  return 0;
}
