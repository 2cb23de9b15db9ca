#include "dataplane/transport/tcp/tcp_gateway_link.h"

#include <utility>

#include "dataplane/transport/link_request.h"
#include "shm_ring/kelp.h"

namespace kelp {

using wire::FrameKind;
using Verdict = wire::GatewaySlots::Verdict;

TcpGatewayLink::TcpGatewayLink(Uring& uring, UniqueFd socket, std::uint64_t id,
                               const wire::Agreement& agreement,
                               std::span<const std::byte> received, GatewayLink::User& user)
    : user_(user),
      slots_(agreement.slots),
      requests_(agreement.slots),
      max_slice_bytes_(agreement.max_slice_bytes),
      // A request and its cancellation each, and a Pong.
      connection_(uring, std::move(socket), id, 2 * std::size_t{agreement.slots} + 8, received,
                  *this) {}

std::optional<std::uint16_t> TcpGatewayLink::ask(std::uint32_t owner, const LinkRead& read) {
  if (ending() || !may_be_asked(read, max_slice_bytes_)) return std::nullopt;
  const auto taken = slots_.take(owner);
  if (!taken) return std::nullopt;
  std::array<std::byte, wire::kMostFrameBytes> room;
  connection_.post(wire::write_request(request_of(read, *taken), read.token, room));
  requests_[taken->slot] = {read.buffer, taken->generation, owner};
  return taken->slot;
}

bool TcpGatewayLink::let_go(std::uint16_t slot) {
  const Request& request = requests_[slot];
  slots_.abandon(slot);
  wire::Cancel cancel;
  cancel.slot = slot;
  cancel.generation = request.generation;
  wire::seal(cancel, FrameKind::kCancel);
  connection_.post(std::as_bytes(std::span(&cancel, 1)));
  if (connection_.payload_under_way() && answer_.slot == slot) connection_.let_go();
  return true;
}

void TcpGatewayLink::fence() {
  connection_.fence();
  tell_if_fenced();
}

/// Only now: until the kernel has let go, a buffer may still be written to.
void TcpGatewayLink::tell_if_fenced() {
  if (told_ || !connection_.fenced()) return;
  told_ = true;
  slots_.fence([this](std::uint32_t owner) { user_.lost(owner); }, [](std::uint32_t) {});
}

bool TcpGatewayLink::take_frame(FrameKind kind, std::span<const std::byte> frame,
                                TcpConnection::Payload& payload) {
  switch (kind) {
    case FrameKind::kAnswer:
      return take_answer(frame, payload);
    case FrameKind::kPing: {
      auto echo = wire::copy_frame<wire::Echo>(frame);
      wire::seal(echo, FrameKind::kPong);
      return connection_.post(std::as_bytes(std::span(&echo, 1)));
    }
    case FrameKind::kPong:
      return true;
    case FrameKind::kDrain:
      draining_ = true;
      return true;
    default:
      return false;
  }
}

bool TcpGatewayLink::take_answer(std::span<const std::byte> frame,
                                 TcpConnection::Payload& payload) {
  const auto answer = wire::read_answer(frame, slots_.credits());
  if (!answer) return false;
  const auto judged = slots_.judge(answer->slot, answer->generation);
  if (judged.verdict == Verdict::kBroken) return false;
  const Request& request = requests_[answer->slot];
  if (answer->bytes > request.buffer.size()) return false;
  answer_ = *answer;
  if (answer->bytes == 0) {
    take_payload(answer->crc32c == 0);
    return true;
  }
  payload.bytes = answer->bytes;
  payload.crc32c = answer->crc32c;
  if (judged.verdict == Verdict::kCurrent)
    payload.destination = request.buffer.first(answer->bytes);
  return true;
}

void TcpGatewayLink::take_payload(bool intact) {
  const auto judged = slots_.judge(answer_.slot, answer_.generation);
  slots_.release(answer_.slot);
  if (judged.verdict == Verdict::kCurrent) {
    user_.answered(requests_[answer_.slot].owner, answer_, intact);
  } else {
    user_.passed_over(*this);
  }
}

}  // namespace kelp
