#include "dataplane/transport/verbs/verbs_gateway_link.h"

#include "dataplane/transport/link_request.h"

namespace kelp {

using wire::FrameKind;
using Verdict = wire::GatewaySlots::Verdict;

VerbsGatewayLink::VerbsGatewayLink(std::shared_ptr<VerbsEndpoint> endpoint,
                                   const wire::Agreement& agreement, GatewayLink::User& user)
    : endpoint_(std::move(endpoint)),
      user_(user),
      slots_(agreement.slots),
      requests_(agreement.slots),
      max_slice_bytes_(agreement.max_slice_bytes) {}

std::optional<std::uint16_t> VerbsGatewayLink::ask(std::uint32_t owner, const LinkRead& read) {
  if (ending() || !may_be_asked(read, max_slice_bytes_) || read.keys == nullptr) {
    return std::nullopt;
  }
  const auto key = read.keys->remote_key(endpoint_->domain().index);
  if (!key) return std::nullopt;
  const auto taken = slots_.take(owner);
  if (!taken) return std::nullopt;
  wire::Request request = request_of(read, *taken);
  request.rkey = *key;
  request.remote_address = reinterpret_cast<std::uint64_t>(read.buffer.data());
  std::array<std::byte, wire::kMostFrameBytes> room;
  endpoint_->post_frame(wire::write_request(request, read.token, room));
  requests_[taken->slot] = {request.length_bytes, taken->generation, ticks_now()};
  return taken->slot;
}

bool VerbsGatewayLink::let_go(std::uint16_t slot) {
  slots_.abandon(slot);
  wire::Cancel cancel;
  cancel.slot = slot;
  cancel.generation = requests_[slot].generation;
  wire::seal(cancel, FrameKind::kCancel);
  endpoint_->post_frame(std::as_bytes(std::span(&cancel, 1)));
  return false;
}

bool VerbsGatewayLink::flush() {
  constexpr std::uint32_t kManyUnderWay = 8;
  if (slots_.in_flight() >= endpoint_->queued() + kManyUnderWay) {
    return endpoint_->flush_worthwhile(hold_limit_);
  }
  endpoint_->flush();
  return false;
}

unsigned VerbsGatewayLink::poll() noexcept {
  if (told_) return 0;
  if (endpoint_->gone()) {
    tell_if_gone();
    return 1;
  }
  const unsigned count = endpoint_->poll(*this);
  if (endpoint_->hung_up()) endpoint_->ask_end("the peer closed it");
  return count;
}

/// Only now: until the queue pair is gone, a buffer may still be written to.
void VerbsGatewayLink::tell_if_gone() {
  told_ = true;
  endpoint_->give_back_all();
  slots_.fence([this](std::uint32_t owner) { user_.lost(owner); },
               [this](std::uint32_t owner) { user_.released(owner); });
}

bool VerbsGatewayLink::arrived(const VerbsEndpoint::Arrival& arrival) {
  if (arrival.immediate) {
    const wire::Answer answer = wire::answer_of(arrival.value, arrival.bytes);
    return answer.status == KELP_OK && take_answer(answer);
  }
  const wire::Peeked next = wire::peek_frame(arrival.frame);
  if (next.state != wire::Peek::kFrame || next.bytes != arrival.bytes) return false;
  switch (next.kind) {
    case FrameKind::kAnswer: {
      const auto answer = wire::read_answer(arrival.frame, slots_.credits());
      return answer && take_answer(*answer);
    }
    case FrameKind::kPing: {
      auto echo = wire::copy_frame<wire::Echo>(arrival.frame);
      wire::seal(echo, FrameKind::kPong);
      return endpoint_->post_frame(std::as_bytes(std::span(&echo, 1)));
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

bool VerbsGatewayLink::take_answer(const wire::Answer& answer) {
  const auto judged = slots_.judge(answer.slot, answer.generation);
  if (judged.verdict == Verdict::kBroken) return false;
  if (answer.bytes > requests_[answer.slot].length_bytes) return false;
  slots_.release(answer.slot);
  hold_limit_.ended(requests_[answer.slot].asked);
  if (judged.verdict == Verdict::kCurrent) {
    // The adapter has checked what it received.
    user_.answered(judged.owner, answer, true);
  } else {
    user_.passed_over(*this);
    user_.released(judged.owner);
  }
  return true;
}

}  // namespace kelp
