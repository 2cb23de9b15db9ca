// Requests that the kelpd of another host answers, slice by slice: out by its link, and back. What
// it cannot answer goes on to the remote lane. See dataplane/transport/link.h.
#include <algorithm>
#include <new>
#include <utility>

#include "dataplane/worker/worker.h"

namespace kelp {
namespace {

/// A route is believed for so long; then the next read by the remote lane tells again.
constexpr std::uint64_t kRouteUs = 60'000'000;
/// A peer has half of the time a request has left, by RDMA a third, for there are two more ways;
/// but no more than this. Then the next path is tried.
constexpr std::uint64_t kMostPatienceUs = 1'000'000;
/// What was let go of by RDMA, and is not answered by then, is had back by a fence: a read that is
/// held can go nowhere else. A target that is well answers a Cancel at once.
constexpr std::uint64_t kFenceHeldAfterUs = 250'000;

bool is_final(kelp_status status) noexcept {
  switch (status) {
    case KELP_NOT_FOUND:
    case KELP_WRONG_COOKIE:
    case KELP_EXPIRED:
    case KELP_RANGE:
    case KELP_BROKEN_GZIP:
      return true;
    default:
      // A token is for HTTP to carry; a deadline of the peer's may be earlier than ours.
      return false;
  }
}

}  // namespace

bool Worker::add_link(std::unique_ptr<NewLink> link) noexcept {
  if (!new_links_.try_push(std::move(link))) return false;
  waker_.notify();
  return true;
}

std::uint32_t Worker::take_links() noexcept {
  std::uint32_t taken = 0;
  for (; std::optional<std::unique_ptr<NewLink>> made = new_links_.try_pop(); ++taken) {
    const LinkEnded refused{(*made)->role, (*made)->peer, (*made)->agreement.target_worker,
                            (*made)->id,
                            (*made)->endpoint != nullptr ? KELP_PATH_VERBS : KELP_PATH_TCP};
    if (draining_ || !peers_.add(std::move(*made), *this, *this, epoll_.get())) {
      // Control destroys what is left of it.
      report_link(refused);
    }
  }
  return taken + peers_.poll();
}

void Worker::sweep_links() noexcept {
  peers_.sweep(ticks_now(), [this](const LinkEnded& ended) { report_link(ended); });
}

void Worker::report_link(const LinkEnded& ended) noexcept {
  // The queue holds as many as there may be links.
  ended_links_.try_push(LinkEnded(ended));
  if (control_ != nullptr) control_->notify();
}

void Worker::learn_route(const Op& op, PeerIndex peer) noexcept {
  if (peer == kNoPeer) return;
  try {
    peers_.learn(op.submission.volume, peer, ticks_now() + rate_.from_us(kRouteUs));
  } catch (const std::bad_alloc&) {
    // It is read by HTTP.
  }
}

LinkRead Worker::wanted_of_peer(const Op& op, Ticks now) const noexcept {
  LinkRead wanted;
  wanted.fid = {VolumeId{op.submission.volume}, NeedleId{op.submission.needle},
                Cookie{op.submission.cookie}};
  wanted.stat = op.submission.op == OpCode::kStat;
  wanted.offset_bytes = op.submission.offset_bytes;
  wanted.buffer = op.buffer;
  if (op.segment != nullptr) wanted.keys = &op.segment->region_keys();
  if (op.generated()) wanted.keys = &load_->region_keys();
  wanted.timeout_us = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(rate_.to_ns(op.deadline - now) / 1000, UINT32_MAX));
  return wanted;
}

/// With its peer, from now on.
void Worker::be_patient(Op& op, Ticks now) const noexcept {
  const Ticks ways = op.peer_path == KELP_PATH_VERBS ? 3 : 2;
  op.peer_deadline = now + std::min((op.deadline - now) / ways, rate_.from_us(kMostPatienceUs));
}

/// The op is in no list. Each way to its peer is tried once, the fastest first. False: nothing has
/// happened.
bool Worker::ask_peer(OpIndex index) noexcept {
  Op& op = ops_[index];
  if (op.peers_asked == kNoPeersToAsk) return false;
  const Ticks now = ticks_now();
  if (now >= op.deadline) return false;
  const auto peer = peers_.peer_for(op.submission.volume, now);
  if (!peer) return false;
  for (const kelp_path path : {KELP_PATH_VERBS, KELP_PATH_TCP}) {
    const auto bit = static_cast<std::uint8_t>(1U << path);
    if ((op.peers_asked & bit) != 0) continue;
    GatewayLink* const link = peers_.link_to(*peer, op.submission.volume, path);
    if (link == nullptr || !op.peer_read.begin(*link, index, wanted_of_peer(op, now), now))
      continue;
    op.peers_asked |= bit;
    op.peer_path = path;
    wait_for_peer(index, now);
    return true;
  }
  return false;
}

void Worker::wait_for_peer(OpIndex index, Ticks now) noexcept {
  Op& op = ops_[index];
  be_patient(op, now);
  op.peer_asked = now;
  op.held_since = 0;
  ++op.remote_attempts;
  counters_.peer_reads.add();
  op.state = OpState::kPeerWait;
  peer_waits_.push_back(index);
}

void Worker::answered(std::uint32_t owner, const wire::Answer& answer, bool intact) {
  const auto [index, slice] = PeerRead::owner_of(owner);
  Op& op = ops_[index];
  GatewayLink& link = op.peer_read.link();
  const Ticks took = op.peer_read.ended(slice, ticks_now());
  typical_answer_ += took / 16 - typical_answer_ / 16;
  peers_.heard(link);
  const auto status = static_cast<kelp_status>(answer.status);
  LinkCounters& counters = link.counters();
  counters.answers.add();
  counters.bytes.add(answer.bytes);
  counters.latency.record(rate_.to_ns(took));
  if (!intact) {
    counters_.crc_errors.add();
    give_up_peer(index, KELP_CORRUPT);
  } else if (status == KELP_OK) {
    counters.ok.add();
    take_slice(index, slice, answer);
  } else if (is_final(status) && op.peer_read.unanswered()) {
    ReadOutcome outcome;
    outcome.status = status;
    outcome.total_bytes = answer.total_bytes;
    finish_peer(index, outcome);
  } else {
    // Of a needle whose first bytes have come it is final for nobody.
    const bool elsewhere = is_final(status) || status == KELP_DEADLINE;
    // By RDMA that may be for want of a block of the target's arena.
    const bool not_there = status == KELP_UNAVAILABLE && op.peer_path != KELP_PATH_VERBS;
    if (not_there) peers_.forget(op.submission.volume);
    give_up_peer(index, elsewhere ? KELP_UNAVAILABLE : status);
  }
}

void Worker::take_slice(OpIndex index, std::uint32_t slice, const wire::Answer& answer) noexcept {
  Op& op = ops_[index];
  switch (op.peer_read.take(slice, answer)) {
    case PeerRead::Turn::kDone:
      return finish_peer(index, op.peer_read.outcome());
    case PeerRead::Turn::kWrong:
      return give_up_peer(index, KELP_CORRUPT);
    case PeerRead::Turn::kMore:
      break;
  }
  const Ticks now = ticks_now();
  const bool goes_on = now < op.deadline && op.peer_read.next(index, wanted_of_peer(op, now), now);
  if (!goes_on) return give_up_peer(index, KELP_UNAVAILABLE);
  be_patient(op, now);
}

void Worker::finish_peer(OpIndex index, const ReadOutcome& outcome) noexcept {
  Op& op = ops_[index];
  peer_waits_.remove(index);
  forget_hedge(op);
  op.path = op.peer_path;
  end(index, outcome);
}

/// True: nothing of its answers can land any more. False: it will be said when that is so.
bool Worker::stop_peer(Op& op, kelp_status why) noexcept {
  op.peer_status = why;
  op.held_since = op.peer_read.let_go() ? 0 : ticks_now();
  return !op.held_by_peer();
}

void Worker::give_up_peer(OpIndex index, kelp_status why) noexcept {
  if (stop_peer(ops_[index], why)) leave_peer(index, why);
}

/// On to the next path, if there is one and it is not under way already.
void Worker::leave_peer(OpIndex index, kelp_status why) noexcept {
  Op& op = ops_[index];
  op.held_since = 0;
  const bool over = op.answered || op.abandoned() || why == KELP_DEADLINE;
  if (!over && op.hedge != kNoOp) return;
  peer_waits_.remove(index);
  forget_hedge(op);
  if (!over && go_elsewhere(index, why)) return;
  end(index, over ? KELP_DEADLINE : why);
}

void Worker::passed_over(GatewayLink& link) {
  counters_.peer_late.add();
  link.counters().late.add();
  peers_.heard(link);
}

void Worker::released(std::uint32_t owner) {
  nothing_lands(owner);
}

void Worker::lost(std::uint32_t owner) {
  nothing_lands(owner);
}

/// Of that slice; what was asked is known to fail.
void Worker::nothing_lands(std::uint32_t owner) noexcept {
  const auto [index, slice] = PeerRead::owner_of(owner);
  Op& op = ops_[index];
  op.peer_read.ended(slice, ticks_now());
  if (!op.held_by_peer()) {
    op.peer_status = KELP_UNAVAILABLE;
    op.held_since = ticks_now();
  }
  if (op.peer_read.idle()) leave_peer(index, op.peer_status);
}

/// Nobody waits for them any more: their deadline has passed, their client is gone, or their peer
/// has had its time and another path is tried, once nothing can land in the buffer any more.
void Worker::let_go_overdue(Ticks now) noexcept {
  for (OpIndex each = peer_waits_.first(); each != kNoOp;) {
    const OpIndex index = each;
    each = peer_waits_.after(each);
    Op& op = ops_[index];
    const bool over = now >= op.deadline || unwanted(op);
    if (op.held_by_peer()) {
      // Over TCP nothing is held, but by a link that is being fenced.
      const bool late = now - op.held_since >= rate_.from_us(kFenceHeldAfterUs);
      if (late && op.peer_path == KELP_PATH_VERBS) op.peer_read.link().fence();
      if (over && !op.answered) answer_held(op);
    } else if (over && op.peer_read.idle()) {
      leave_peer(index, KELP_DEADLINE);  // what it hedged with will not land in its buffer
    } else if (op.answered || op.peer_read.idle()) {
      continue;
    } else if (now >= op.peer_deadline || over) {
      if (now >= op.peer_deadline) peers_.suspect(op.peer_read.link(), now);
      give_up_peer(index, over ? KELP_DEADLINE : KELP_UNAVAILABLE);
      if (over && op.held_by_peer()) answer_held(op);
    } else if (hedge_rooms_ != nullptr && may_hedge(op, now)) {
      hedge(index, now);
    }
  }
}

}  // namespace kelp
