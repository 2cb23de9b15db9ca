#include "dataplane/wire/frames.h"

#include <algorithm>

#include "dataplane/checksum/crc32c.h"
#include "shm_ring/kelp.h"

namespace kelp::wire {
namespace {

/// Statuses a target may answer with. Those above KELP_DEADLINE are libkelp's own.
bool is_status(std::uint8_t status) noexcept {
  switch (status) {
    case KELP_OK:
    case KELP_NOT_FOUND:
    case KELP_WRONG_COOKIE:
    case KELP_EXPIRED:
    case KELP_RANGE:
    case KELP_DENIED:
    case KELP_BROKEN_GZIP:
    case KELP_INVALID:
    case KELP_CORRUPT:
    case KELP_USE_HTTP:
    case KELP_UNAVAILABLE:
    case KELP_DEADLINE:
      return true;
    default:
      return false;
  }
}

}  // namespace

std::size_t frame_bytes(FrameKind kind) noexcept {
  switch (kind) {
    case FrameKind::kHello:
      return sizeof(Hello);
    case FrameKind::kChallenge:
      return sizeof(Challenge);
    case FrameKind::kProof:
      return sizeof(Proof);
    case FrameKind::kWelcome:
      return sizeof(Welcome);
    case FrameKind::kRefused:
      return sizeof(Refused);
    case FrameKind::kRequest:
      return sizeof(Request);
    case FrameKind::kAnswer:
      return sizeof(Answer);
    case FrameKind::kCancel:
      return sizeof(Cancel);
    case FrameKind::kPing:
    case FrameKind::kPong:
      return sizeof(Echo);
    case FrameKind::kDrain:
      return sizeof(Drain);
  }
  return 0;
}

std::uint32_t frame_check(std::span<const std::byte> frame) noexcept {
  constexpr std::size_t kAt = offsetof(FrameHeader, check);
  constexpr std::array<std::byte, sizeof(FrameHeader::check)> kNothing{};
  std::uint32_t crc = crc32c(frame.first(kAt));
  crc = crc32c_extend(crc, kNothing);
  return crc32c_extend(crc, frame.subspan(sizeof(FrameHeader)));
}

void seal(std::span<std::byte> frame, FrameKind kind) noexcept {
  FrameHeader header;
  header.bytes = static_cast<std::uint16_t>(frame.size());
  header.kind = kind;
  std::memcpy(frame.data(), &header, sizeof header);
  header.check = frame_check(frame);
  std::memcpy(frame.data(), &header, sizeof header);
}

Peeked peek_frame(std::span<const std::byte> stream) noexcept {
  if (stream.size() < sizeof(FrameHeader)) return {};
  const auto header = copy_frame<FrameHeader>(stream);
  const std::size_t least = frame_bytes(header.kind);
  const std::size_t most = header.kind == FrameKind::kRequest ? kMostFrameBytes : least;
  // Looked at before the rest is waited for: what is no frame should not seem to be a long one.
  if (least == 0 || header.bytes < least || header.bytes > most || header.reserved != 0) {
    return {Peek::kBroken, header.kind, 0};
  }
  if (stream.size() < header.bytes) return {};
  if (frame_check(stream.first(header.bytes)) != header.check) {
    return {Peek::kBroken, header.kind, 0};
  }
  return {Peek::kFrame, header.kind, header.bytes};
}

std::span<const std::byte> write_request(Request request, std::string_view token,
                                         std::span<std::byte, kMostFrameBytes> room) noexcept {
  if (token.size() > kMostTokenBytes) return {};
  request.token_bytes = static_cast<std::uint16_t>(token.size());
  std::memcpy(room.data(), &request, sizeof request);
  if (!token.empty()) std::memcpy(room.data() + sizeof request, token.data(), token.size());
  const auto frame = room.first(sizeof request + token.size());
  seal(frame, FrameKind::kRequest);
  return frame;
}

std::optional<ReadRequestFrame> read_request(std::span<const std::byte> frame, std::uint16_t slots,
                                             std::uint32_t max_slice_bytes) noexcept {
  ReadRequestFrame read{copy_frame<Request>(frame), {}};
  const Request& request = read.request;
  const bool known = request.kind == RequestKind::kRead || request.kind == RequestKind::kStat;
  if (!known || request.slot >= slots || request.length_bytes == 0 ||
      request.length_bytes > max_slice_bytes || request.reserved != 0 || request.reserved2 != 0 ||
      frame.size() != sizeof request + request.token_bytes) {
    return std::nullopt;
  }
  read.token = {reinterpret_cast<const char*>(frame.data()) + sizeof request, request.token_bytes};
  return read;
}

std::optional<Answer> read_answer(std::span<const std::byte> frame, std::uint16_t slots) noexcept {
  const auto answer = copy_frame<Answer>(frame);
  if (answer.slot >= slots || answer.reserved != 0 || !is_status(answer.status)) {
    return std::nullopt;
  }
  const bool ok = answer.status == KELP_OK;
  if ((!ok && answer.bytes != 0) || answer.bytes > kMostSliceBytes) return std::nullopt;
  return answer;
}

std::optional<std::uint32_t> immediate_of(const Answer& answer) noexcept {
  const bool plain = answer.status == KELP_OK && answer.flags == KELP_FLAG_CRC_VERIFIED &&
                     answer.bytes != 0 && answer.bytes == answer.total_bytes;
  if (!plain) return std::nullopt;
  return std::uint32_t{answer.slot} << 16 | std::uint32_t{answer.generation} << 8 | answer.status;
}

Answer answer_of(std::uint32_t immediate, std::uint32_t bytes) noexcept {
  Answer answer;
  answer.slot = static_cast<std::uint16_t>(immediate >> 16);
  answer.generation = static_cast<std::uint8_t>(immediate >> 8);
  answer.status = static_cast<std::uint8_t>(immediate);
  answer.flags = KELP_FLAG_CRC_VERIFIED;
  answer.bytes = bytes;
  answer.total_bytes = bytes;
  return answer;
}

std::string printable(std::span<const char> field) {
  std::string text(field.begin(), std::ranges::find(field, '\0'));
  std::ranges::replace_if(
      text, [](char c) { return c < ' ' || c > '~'; }, '?');
  return text;
}

}  // namespace kelp::wire
