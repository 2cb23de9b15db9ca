// Requests of other hosts' gateways: ops like any other, but that their bytes go into the link's
// memory, and their answer back by it. See dataplane/transport/link.h.
#include <algorithm>

#include "dataplane/worker/worker.h"

namespace kelp {
namespace {

/// `slot` of an op whose request was answered while somebody still read for it.
constexpr std::uint16_t kAnsweredAtOnce = UINT16_MAX;
static_assert(kAnsweredAtOnce >= wire::kMostSlots);

/// The same for slices of the same record, and for no others: a generation is used once in a
/// process, and within it a record stays where it is.
std::uint64_t source_of(std::uint64_t generation, std::uint64_t offset_bytes) noexcept {
  return generation * 0x9e3779b97f4a7c15ULL ^ offset_bytes;
}

}  // namespace

void Worker::asked(TargetLink& link, const wire::Request& request, std::string_view) {
  const bool ours = owner_of(VolumeId{request.volume}, options_.workers) == options_.index;
  if (free_.empty() || draining_ || !ours) {
    wire::Answer none;
    none.slot = request.slot;
    none.status = KELP_UNAVAILABLE;
    link.answer(none);
    return;
  }
  const OpIndex index = free_.pop_front();
  Op& op = ops_[index];
  op.reset();
  op.asker = &link;
  op.slot = request.slot;
  op.submission = {};
  op.submission.op = request.kind == wire::RequestKind::kStat ? OpCode::kStat : OpCode::kRead;
  op.submission.volume = request.volume;
  op.submission.needle = request.needle;
  op.submission.cookie = request.cookie;
  op.submission.offset_bytes = request.offset_bytes;
  op.went_elsewhere = true;  // whoever asks has other ways
  op.peers_asked = kNoPeersToAsk;
  op.buffer = link.room(request.slot);
  op.taken = ticks_now();
  op.deadline = op.taken +
                rate_.from_us(std::min<std::uint64_t>(request.timeout_us, options_.max_timeout_us));
  counters_.peer_requests.add();
  op.state = OpState::kRouting;
  routing_.push_back(index);
}

/// Nobody waits for that answer: it comes now, or where the room is one with the slot, when whoever
/// reads into it has stopped.
void Worker::cancelled(TargetLink& link, std::uint16_t slot) {
  const auto find = [&](const OpList& list) {
    OpIndex index = list.first();
    while (index != kNoOp && (ops_[index].asker != &link || ops_[index].slot != slot))
      index = list.after(index);
    return index;
  };
  for (OpList* const list : {&routing_, &volume_waits_, &reading_}) {
    const OpIndex index = find(*list);
    if (index == kNoOp) continue;
    list->remove(index);
    end(index, KELP_DEADLINE);
    return;
  }
  for (const OpList* const list : {&storage_waits_, &private_waits_}) {
    const OpIndex index = find(*list);
    if (index == kNoOp) continue;
    Op& op = ops_[index];
    op.answered = true;
    if (!link.answer_at_once(slot)) return;
    count_answer(op, KELP_DEADLINE, 0);
    op.slot = kAnsweredAtOnce;
    return;
  }
}

void Worker::count_answer(const Op& op, kelp_status status, std::uint32_t bytes) noexcept {
  LinkCounters& counters = op.asker->counters();
  counters.answers.add();
  counters.bytes.add(bytes);
  if (status == KELP_OK) counters.ok.add();
  counters.latency.record(rate_.to_ns(ticks_now() - op.taken));
}

void Worker::answer_peer(const Op& op, const ReadOutcome& outcome) noexcept {
  if (op.slot == kAnsweredAtOnce) return op.asker->give_back(op.buffer);
  wire::Answer answer;
  AnswerBytes bytes;
  answer.slot = op.slot;
  answer.status = static_cast<std::uint8_t>(outcome.status);
  if (outcome.status == KELP_OK) {
    answer.flags = outcome.flags;
    answer.bytes = outcome.bytes;
    answer.source = source_of(op.generation, op.record_offset_bytes);
    if (outcome.has_crc) bytes.crc32c = outcome.crc32c;
    // What was read privately is in the room, whatever was planned.
    if (op.path != KELP_PATH_CACHE && op.read.request().judge_only &&
        op.read.next() == NeedleRead::Next::kDone) {
      bytes.file = op.read.request().dat_fd;
      bytes.offset_bytes = op.read.data_offset_bytes();
    }
  }
  if (outcome.status == KELP_OK || outcome.status == KELP_RANGE)
    answer.total_bytes = outcome.total_bytes;
  count_answer(op, outcome.status, answer.bytes);
  op.asker->answer(answer, bytes);
}

}  // namespace kelp
