#include "dataplane/transport/verbs/verbs_target_link.h"

#include <utility>

namespace kelp {

using wire::FrameKind;

VerbsTargetLink::VerbsTargetLink(std::shared_ptr<VerbsEndpoint> endpoint,
                                 std::shared_ptr<RegisteredArena> arena,
                                 const wire::Agreement& agreement, TargetLink::User& user)
    : endpoint_(std::move(endpoint)),
      arena_(std::move(arena)),
      user_(user),
      slots_(agreement.slots),
      requests_(agreement.slots),
      credits_(agreement.slots),
      max_slice_bytes_(agreement.max_slice_bytes) {}

unsigned VerbsTargetLink::poll() noexcept {
  if (endpoint_->gone()) {
    endpoint_->give_back_all();
    return 0;
  }
  const unsigned count = endpoint_->poll(*this);
  if (endpoint_->hung_up()) endpoint_->ask_end("the peer closed it");
  return count;
}

bool VerbsTargetLink::arrived(const VerbsEndpoint::Arrival& arrival) {
  const wire::Peeked next = wire::peek_frame(arrival.frame);
  if (arrival.immediate || next.state != wire::Peek::kFrame || next.bytes != arrival.bytes) {
    return false;
  }
  switch (next.kind) {
    case FrameKind::kRequest:
      return begin(arrival.frame.first(next.bytes));
    case FrameKind::kCancel: {
      const auto cancel = wire::copy_frame<wire::Cancel>(arrival.frame);
      if (cancel.slot >= credits_) return false;
      if (slots_.is_under_way(cancel.slot, cancel.generation)) user_.cancelled(*this, cancel.slot);
      return true;
    }
    case FrameKind::kPing: {
      auto echo = wire::copy_frame<wire::Echo>(arrival.frame);
      wire::seal(echo, FrameKind::kPong);
      return endpoint_->post_frame(std::as_bytes(std::span(&echo, 1)));
    }
    case FrameKind::kPong:
      return true;
    default:
      return false;
  }
}

bool VerbsTargetLink::begin(std::span<const std::byte> frame) {
  const auto read = wire::read_request(frame, credits_, max_slice_bytes_);
  if (!read || !slots_.begin(read->request.slot, read->request.generation)) return false;
  const wire::Request& asked = read->request;
  Request& request = requests_[asked.slot];
  request = {asked.generation, asked.rkey, asked.remote_address, {}, ticks_now()};
  const auto room = arena_->blocks.take(asked.length_bytes);
  if (!room) {
    // The arena is lent out to the last block: the gateway has other ways.
    wire::Answer none;
    none.slot = asked.slot;
    none.status = KELP_UNAVAILABLE;
    answer(none, {});
    return true;
  }
  request.room = *room;
  user_.asked(*this, asked, read->token);
  return true;
}

void VerbsTargetLink::answer(wire::Answer answer, const AnswerBytes& bytes) {
  const Request& request = requests_[answer.slot];
  const std::span<std::byte> room = std::exchange(requests_[answer.slot].room, {});
  answer.generation = request.generation;
  if (answer.status != KELP_OK) answer.bytes = 0;
  slots_.end(answer.slot);
  hold_limit_.ended(request.heard);
  if (answer.bytes == 0 || endpoint_->broken()) {
    if (!room.empty()) arena_->blocks.give_back(room.data());
    return post_answer(answer);
  }
  VerbsEndpoint::Write write;
  write.bytes = room.first(answer.bytes);
  write.arena = arena_.get();
  write.remote_address = request.remote_address;
  write.remote_key = request.remote_key;
  if (const auto value = wire::immediate_of(answer)) {
    write.immediate = true;
    write.value = *value;
    endpoint_->post_write(write);
    return;
  }
  answer.crc32c = bytes.crc32c.value_or(0);
  endpoint_->post_write(write);
  post_answer(answer);
}

bool VerbsTargetLink::answer_at_once(std::uint16_t slot) {
  if (rooms_out_ == credits_) return false;
  ++rooms_out_;
  requests_[slot].room = {};
  wire::Answer none;
  none.slot = slot;
  none.status = KELP_DEADLINE;
  answer(none, {});
  return true;
}

void VerbsTargetLink::give_back(std::span<std::byte> room) {
  --rooms_out_;
  arena_->blocks.give_back(room.data());
}

void VerbsTargetLink::post_answer(wire::Answer answer) {
  wire::seal(answer, FrameKind::kAnswer);
  endpoint_->post_frame(std::as_bytes(std::span(&answer, 1)));
}

bool VerbsTargetLink::flush() {
  constexpr std::uint16_t kManyUnderWay = 8;
  if (slots_.in_flight() >= kManyUnderWay) return endpoint_->flush_worthwhile(hold_limit_);
  endpoint_->flush(slots_.in_flight() == 0);
  return false;
}

void VerbsTargetLink::drain() {
  wire::Drain drain;
  wire::seal(drain, FrameKind::kDrain);
  endpoint_->post_frame(std::as_bytes(std::span(&drain, 1)));
}

}  // namespace kelp
