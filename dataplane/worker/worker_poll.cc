// A request's start and end: out of the submission ring, into the completion ring.
#include <algorithm>

#include "dataplane/worker/worker.h"
#include "shm_ring/hints.h"
#include "shm_ring/wake_flag.h"

namespace kelp {
namespace {

/// What a client whose memory makes threads sleep may have taken, and how often: the storage thread
/// that sleeps instead has others to serve, and takes a CPU from somebody.
constexpr std::uint32_t kDistrustedRequests = 8;
constexpr std::uint64_t kDistrustedPeriodUs = 20'000;

}  // namespace

std::uint32_t Worker::drain_submissions() noexcept {
  if (shares_.size() > 1) return drain_clients();
  const auto count = static_cast<std::uint32_t>(rings_.size());
  if (count == 0) return 0;
  // Each turn starts one ring further on, so that a busy ring cannot starve those behind it.
  if (++next_ring_ >= count) next_ring_ = 0;
  std::uint32_t taken = 0;
  for (std::uint32_t i = 0; i < count && taken < kBatch; ++i) {
    const std::uint32_t at = next_ring_ + i < count ? next_ring_ + i : next_ring_ + i - count;
    ServerRing& ring = *rings_[at];
    if (!ring.severed()) taken += drain_ring(ring, kBatch - taken);
  }
  return taken;
}

/// Client by client, until the batch is full or each of them had its turn and left some of it: how
/// many rings a client has gains it nothing. The next turn goes on where this one ends.
std::uint32_t Worker::drain_clients() noexcept {
  if (++client_turns_ < contended_until_) return drain_contended();
  const auto count = static_cast<std::uint32_t>(shares_.size());
  std::uint32_t taken = 0;
  for (std::uint32_t sated = 0; sated < count && taken < kBatch;) {
    const std::uint32_t budget = std::min(kQuantum, kBatch - taken);
    const std::uint32_t got = drain_next_client(budget);
    taken += got;
    sated = got < budget ? sated + 1 : 0;
  }
  return taken;
}

/// While several clients submit. Who has no queue goes first, with one request each; of the queues
/// one request follows, or some where there is nothing else. So what comes alone waits for one
/// request of somebody else's, and a batch of 32 reads is twenty times as long as that.
std::uint32_t Worker::drain_contended() noexcept {
  const auto count = static_cast<std::uint32_t>(shares_.size());
  std::uint32_t taken = 0;
  for (std::uint32_t i = 0; i < count && taken < kBatch - kContendedBatch; ++i) {
    if (next_share_ >= count) next_share_ = 0;
    if (shares_[next_share_]->queues) {
      ++next_share_;
    } else {
      taken += drain_next_client(1);
    }
  }
  if (taken > 0) alone_until_ = client_turns_ + kContendedTurns;
  const std::uint32_t most = client_turns_ < alone_until_ ? 1 : std::min(count, kContendedBatch);
  std::uint32_t queued = 0;
  for (std::uint32_t i = 0; i < count && queued < most; ++i) {
    if (next_queue_ >= count) next_queue_ = 0;
    ClientShare& share = *shares_[next_queue_++];
    if (share.queues) queued += drain_client(share, 1);
  }
  return taken + queued;
}

std::uint32_t Worker::drain_next_client(std::uint32_t budget) noexcept {
  if (next_share_ >= shares_.size()) next_share_ = 0;
  ClientShare& share = *shares_[next_share_++];
  const std::uint32_t got = drain_client(share, budget);
  if (got > 0 && &share != last_served_) {
    last_served_ = &share;
    contended_until_ = client_turns_ + kContendedTurns;
  }
  return got;
}

std::uint32_t Worker::drain_client(ClientShare& share, std::uint32_t budget) noexcept {
  const auto count = static_cast<std::uint32_t>(share.rings.size());
  std::uint32_t taken = 0;
  for (std::uint32_t i = 0; i < count && taken < budget; ++i) {
    if (share.next_ring >= count) share.next_ring = 0;
    ServerRing& ring = *share.rings[share.next_ring++];
    if (!ring.severed()) taken += drain_ring(ring, budget - taken);
  }
  share.queues = taken == budget && has_more(share);
  return taken;
}

bool Worker::has_more(const ClientShare& share) noexcept {
  return std::ranges::any_of(share.rings,
                             [](ServerRing* ring) { return !ring->severed() && ring->ready(); });
}

std::uint32_t Worker::drain_ring(ServerRing& ring, std::uint32_t budget) noexcept {
  if (!ring.ready()) return 0;
  ClientShare& share = ring.share();
  const Ticks now = ticks_now();
  // Whether anybody is, first: that is known without a look at the client.
  if (now < rationed_until_ && ring.client().segment->distrusted(now)) [[unlikely]]
    budget = std::min(budget, ration(share, now));
  std::uint32_t taken = 0;
  Submission submission;
  // A client that has all it may have in work is left to wait in its rings.
  while (taken < budget && !free_.empty() && !share.full) {
    const ServerRing::Intake intake = ring.take(submission);
    if (intake == ServerRing::Intake::kEmpty) break;
    if (intake == ServerRing::Intake::kBroken) {
      break_ring(ring);
      return taken;
    }
    begin(ring, submission, now);
    ++taken;
  }
  ring.publish_head();
  share.ration -= std::min(share.ration, taken);
  return taken;
}

[[gnu::noinline]] std::uint32_t Worker::ration(ClientShare& share, Ticks now) noexcept {
  if (now >= share.next_ration) {
    share.ration = kDistrustedRequests;
    share.next_ration = now + rate_.from_us(kDistrustedPeriodUs);
  }
  return share.ration;
}

// Out of line: a no-op, which is counted nowhere, should not pay for them.
[[gnu::noinline]] void Worker::count_begun(ClientShare& share, std::uint64_t bytes) noexcept {
  share.begin(bytes);
  judge(share);
}

[[gnu::noinline]] void Worker::count_ended(ClientShare& share, std::uint64_t bytes) noexcept {
  share.end(bytes);
  judge(share);
}

void Worker::judge(ClientShare& share) noexcept {
  // The last quarter of the ops is there for everybody: whoever has little in work gets some.
  const std::uint32_t most =
      free_.size() > options_.ops / 4 ? options_.client_requests : scarce_requests_;
  // relaxed: only this thread writes them.
  share.full = share.requests.load(std::memory_order_relaxed) >= most ||
               share.buffer_bytes.load(std::memory_order_relaxed) >= options_.client_bytes;
}

/// Whoever breaks one ring loses all: the control thread detaches the whole client for it.
void Worker::break_ring(ServerRing& broken) noexcept {
  for (ServerRing* ring : broken.share().rings) {
    if (ring->severed()) continue;
    counters_.rings_condemned.add();
    ring->set_state(RingState::kCondemned);
    ring->sever();
  }
  report(WorkerReport::Kind::kRingBroken, &broken);
}

/// `extra` says nothing, or where hints lie inside the client's memory.
bool Worker::names_hints(const ServerRing& ring, const Submission& submission) noexcept {
  return submission.extra == 0 ||
         ring.client().segment->resolve(submission.extra - 1, kHintsBytes).has_value();
}

void Worker::begin(ServerRing& ring, const Submission& submission, Ticks now) noexcept {
  const OpIndex index = free_.pop_front();
  Op& op = ops_[index];
  op.reset();
  op.ring = &ring;
  op.submission = submission;
  op.went_elsewhere = remote_ == nullptr;
  op.taken = now;
  const std::uint64_t timeout_us =
      submission.timeout_us == 0
          ? options_.max_timeout_us
          : std::min<std::uint64_t>(submission.timeout_us, options_.max_timeout_us);
  op.deadline = now + rate_.from_us(timeout_us);

  // Its client may not have seen yet that the ring drains: an answer at once, and nothing begun.
  if (draining_) {
    end(index, KELP_UNAVAILABLE);
    return;
  }
  const bool sound = submission.reserved == 0 && (submission.flags & ~kKnownSubmissionFlags) == 0;
  if (sound && submission.op == OpCode::kNop && submission.extra == 0) {
    counters_.nops.add();
    end(index, KELP_OK);
    return;
  }
  const auto buffer =
      ring.client().segment->resolve(submission.buffer_offset_bytes, submission.length_bytes);
  const bool known = submission.op == OpCode::kRead || submission.op == OpCode::kStat;
  if (!sound || !known || !buffer || buffer->empty() || !names_hints(ring, submission)) {
    end(index, KELP_INVALID);
    return;
  }
  (submission.op == OpCode::kRead ? counters_.reads : counters_.stats).add();
  op.buffer = *buffer;
  op.segment = ring.client().segment.get();
  count_begun(ring.share(), op.buffer.size());
  if (owner_of(VolumeId{submission.volume}, options_.workers) != options_.index) [[unlikely]] {
    forward(index);
    return;
  }
  op.state = OpState::kRouting;
  routing_.push_back(index);
}

void Worker::answer(Op& op, kelp_status status, const ReadOutcome& outcome) noexcept {
  Completion completion{};
  completion.tag = op.submission.tag;
  completion.status = static_cast<std::uint8_t>(status);
  completion.flags = outcome.flags;
  const bool tried_here = op.remote_attempts == 0 || op.tried_here || op.restarts > 0;
  const std::uint32_t here = tried_here ? op.restarts + 1U : 0;
  completion.attempts = static_cast<std::uint8_t>(here + op.remote_attempts);
  if (status == KELP_OK) {
    completion.bytes = outcome.bytes;
    completion.path = op.submission.op == OpCode::kNop ? KELP_PATH_NONE : op.path;
    counters_.bytes.add(outcome.bytes);
  }
  if (status == KELP_OK || status == KELP_RANGE) completion.total_bytes = outcome.total_bytes;
  counters_.completions[completion.status % counters_.completions.size()].add();
  const Ticks now = ticks_now();
  const std::uint64_t took_ns = rate_.to_ns(now - op.taken);
  if (op.state == OpState::kRemoteWait) [[unlikely]] {
    latencies_.remote.record(took_ns);
    if (status == KELP_OK) counters_.remote_bytes.add(outcome.bytes);
    op.ring->complete(completion);
    return;
  }
  last_answer_ = now;
  switch (op.submission.op) {
    case OpCode::kRead:
      latencies_.read.record(took_ns);
      break;
    case OpCode::kStat:
      latencies_.stat.record(took_ns);
      break;
    case OpCode::kNop:
      latencies_.nop.record(took_ns);
      break;
  }
  op.ring->complete(completion);
}

void Worker::answer_held(Op& op) noexcept {
  op.answered = true;
  if (op.ring == nullptr || op.abandoned()) return;
  counters_.buffers_held.add();
  ReadOutcome outcome;
  outcome.flags = KELP_FLAG_BUFFER_HELD;
  answer(op, KELP_DEADLINE, outcome);
}

void Worker::end(OpIndex index, kelp_status status) noexcept {
  ReadOutcome outcome;
  outcome.status = status;
  end(index, outcome);
}

void Worker::end(OpIndex index, const ReadOutcome& outcome) noexcept {
  Op& op = ops_[index];
  if (may_go_elsewhere(op, outcome.status)) [[unlikely]] {
    go_elsewhere(index, outcome.status);
    return;
  }
  if (op.asker != nullptr) [[unlikely]] {
    answer_peer(op, outcome);
  } else if (op.ring == nullptr) [[unlikely]] {
    if (op.link != nullptr) {
      send_back(op, outcome);
    } else {
      op.hedges ? end_hedge(op, outcome) : end_generated(op, outcome);
    }
  } else if (op.ring->severed()) {
    op.ring->forget_one();
  } else if (op.answered) {
    counters_.buffers_released.add();
    Completion released{};
    released.tag = op.submission.tag;
    released.flags = kFlagReleased;
    op.ring->complete(released);
  } else {
    answer(op, outcome.status, outcome);
  }
  unpin(op);
  op.state = OpState::kFree;
  free_.push_front(index);  // it is in the cache
  if (!op.buffer.empty() && op.ring != nullptr) [[unlikely]]
    count_ended(op.ring->share(), op.buffer.size());
}

void Worker::publish() noexcept {
  bool announced = false;
  for (ServerRing* ring : rings_) {
    if (!ring->touched) continue;
    ring->touched = false;
    if (!announced) {
      // One fence for all rings of the turn.
      announce_batch();
      announced = true;
    }
    if (!ring->severed() && ring->wake_client()) counters_.client_wakes.add();
  }
}

}  // namespace kelp
