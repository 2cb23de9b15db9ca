// Second attempts at reads that a peer lets wait: by the remote lane, into memory of the worker's
// own, while the first goes on. Whichever answers first is taken; of the other nothing lands.
#include <cstring>

#include "dataplane/worker/worker.h"

namespace kelp {
namespace {

/// A peer that is slow for everybody is not helped by asking everything twice: a share of its
/// reads, and so many at once as come after a pause.
constexpr std::uint64_t kShareOfReads = 20;
constexpr std::uint64_t kAtFirst = 16;

}  // namespace

/// Hints lie in the client's memory, which is only lent with its op. By RDMA the first attempt
/// cannot be called back at once, and until then nobody else's bytes may be put into its buffer.
bool Worker::may_hedge(const Op& op, Ticks now) const noexcept {
  return op.peer_path != KELP_PATH_VERBS &&
         now - op.peer_asked >= rate_.from_us(options_.hedge_after_us) && op.hedge == kNoOp &&
         !op.hedged && may_go_elsewhere(op) && op.submission.extra == 0 &&
         op.buffer.size() <= HedgeRooms::kRoomBytes && hedge_rooms_->any() && !free_.empty() &&
         counters_.hedges.value() < kAtFirst + counters_.peer_reads.value() / kShareOfReads;
}

void Worker::hedge(OpIndex index, Ticks now) noexcept {
  const OpIndex second = free_.pop_front();
  Op& made = ops_[second];
  Op& op = ops_[index];
  op.hedge = second;
  op.hedged = true;
  made.reset();
  made.hedges = true;
  made.origin = index;
  made.slot = hedge_rooms_->take();
  made.submission = op.submission;
  made.buffer = hedge_rooms_->bytes(made.slot).first(op.buffer.size());
  made.taken = now;
  made.deadline = op.deadline;
  counters_.hedges.add();
  lend(second, KELP_UNAVAILABLE);
}

void Worker::end_hedge(const Op& second, const ReadOutcome& outcome) noexcept {
  if (const OpIndex index = second.origin; index != kNoOp) {
    Op& op = ops_[index];
    op.hedge = kNoOp;
    op.remote_attempts = static_cast<std::uint8_t>(op.remote_attempts + second.remote_attempts);
    const bool won = outcome.status == KELP_OK && stop_peer(op, KELP_UNAVAILABLE);
    if (won) {
      counters_.hedges_won.add();
      const Touch touch = begin_touch(op);
      std::memcpy(op.buffer.data(), second.buffer.data(), outcome.bytes);
      end_touch(op, touch);
      op.path = second.path;
    }
    if (won || op.peer_read.idle()) {
      // The peer has failed before: that was the last way.
      op.went_elsewhere = true;
      peer_waits_.remove(index);
      end(index, outcome);
    }
  }
  hedge_rooms_->give_back(second.slot);
}

void Worker::forget_hedge(Op& op) noexcept {
  if (op.hedge == kNoOp) return;
  ops_[op.hedge].origin = kNoOp;
  ask_back(op.hedge);
  op.hedge = kNoOp;
}

}  // namespace kelp
