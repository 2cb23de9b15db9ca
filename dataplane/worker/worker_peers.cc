// Requests that the kelpd of another host answers, slice by slice: out by its link, and back. What
// it cannot answer goes on to the remote lane. See dataplane/transport/link.h.
#include <sys/epoll.h>

#include <algorithm>
#include <new>
#include <utility>

#include "dataplane/worker/worker.h"

namespace kelp {
namespace {

/// A route is believed for so long; then the next read by the remote lane tells again.
constexpr std::uint64_t kRouteUs = 60'000'000;
/// A peer has half of the time a request has left, but no more than that: then the next path is
/// tried.
constexpr std::uint64_t kMostPatienceUs = 1'000'000;

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
                            (*made)->id};
    const bool first = peers_.fd() < 0;
    if (draining_ || !peers_.add(std::move(*made), *this, *this)) {
      report_link(refused);
      continue;
    }
    if (!first) continue;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, peers_.fd(), &event);
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

/// The op is in no list. False: nothing has happened.
bool Worker::ask_peer(OpIndex index) noexcept {
  Op& op = ops_[index];
  if (op.asked_peer) return false;
  GatewayLink* const link = peers_.link_for(op.submission.volume, ticks_now());
  if (link == nullptr) return false;
  op.slice_bytes = 0;
  op.source = 0;
  if (!ask_slice(index, *link)) return false;
  op.asked_peer = true;
  op.held_by_peer = false;
  ++op.remote_attempts;
  counters_.peer_reads.add();
  op.state = OpState::kPeerWait;
  peer_waits_.push_back(index);
  return true;
}

bool Worker::ask_slice(OpIndex index, GatewayLink& link) noexcept {
  Op& op = ops_[index];
  const Ticks now = ticks_now();
  if (now >= op.deadline) return false;
  LinkRead read;
  read.fid = {VolumeId{op.submission.volume}, NeedleId{op.submission.needle},
              Cookie{op.submission.cookie}};
  read.stat = op.submission.op == OpCode::kStat;
  read.offset_bytes = op.submission.offset_bytes + op.slice_bytes;
  const std::span<std::byte> left = op.buffer.subspan(op.slice_bytes);
  read.buffer = left.first(std::min<std::size_t>(left.size(), link.max_slice_bytes()));
  read.timeout_us = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(rate_.to_ns(op.deadline - now) / 1000, UINT32_MAX));
  const auto slot = link.ask(index, read);
  if (!slot) return false;
  op.peer = &link;
  op.slot = *slot;
  op.peer_deadline = now + std::min((op.deadline - now) / 2, rate_.from_us(kMostPatienceUs));
  return true;
}

void Worker::answered(std::uint32_t owner, const wire::Answer& answer, bool intact) {
  Op& op = ops_[owner];
  GatewayLink& link = *std::exchange(op.peer, nullptr);
  peers_.heard(link);
  const auto status = static_cast<kelp_status>(answer.status);
  if (!intact) {
    counters_.crc_errors.add();
    leave_peer(owner, KELP_CORRUPT);
    return;
  }
  if (status != KELP_OK) {
    if (is_final(status)) {
      ReadOutcome outcome;
      outcome.status = status;
      outcome.total_bytes = answer.total_bytes;
      finish_peer(owner, outcome);
      return;
    }
    if (status == KELP_UNAVAILABLE) peers_.forget(op.submission.volume);
    leave_peer(owner, status == KELP_DEADLINE ? KELP_UNAVAILABLE : status);
    return;
  }
  take_slice(owner, link, answer);
}

/// Slices are of one record, each as long as it should be, or the peer is not believed.
void Worker::take_slice(OpIndex index, GatewayLink& link, const wire::Answer& answer) noexcept {
  Op& op = ops_[index];
  ReadOutcome outcome;
  if (op.submission.op == OpCode::kStat) {
    outcome.status = KELP_OK;
    outcome.bytes = answer.bytes;
    outcome.total_bytes = answer.total_bytes;
    outcome.flags = answer.flags;
    finish_peer(index, outcome);
    return;
  }
  settle_range(op.submission.offset_bytes, op.buffer.size(), answer.total_bytes, outcome);
  const std::size_t asked =
      std::min<std::size_t>(op.buffer.size() - op.slice_bytes, link.max_slice_bytes());
  const bool first = op.slice_bytes == 0;
  const bool right = outcome.status == KELP_OK && outcome.bytes >= op.slice_bytes &&
                     answer.bytes == std::min<std::size_t>(asked, outcome.bytes - op.slice_bytes) &&
                     (first || answer.source == op.source);
  if (!right) {
    leave_peer(index, KELP_CORRUPT);
    return;
  }
  op.source = answer.source;
  op.slice_bytes += answer.bytes;
  if (op.slice_bytes < outcome.bytes) {
    if (!ask_slice(index, link)) leave_peer(index, KELP_UNAVAILABLE);
    return;
  }
  constexpr std::uint16_t kOfTheTarget = KELP_FLAG_CRC_VERIFIED | KELP_FLAG_INFLATED;
  // The target's checksum was over what one answer carried.
  if (first) outcome.flags |= answer.flags & kOfTheTarget;
  finish_peer(index, outcome);
}

void Worker::finish_peer(OpIndex index, const ReadOutcome& outcome) noexcept {
  peer_waits_.remove(index);
  ops_[index].path = KELP_PATH_TCP;
  end(index, outcome);
}

/// On to the next path, if there is one.
void Worker::leave_peer(OpIndex index, kelp_status why) noexcept {
  peer_waits_.remove(index);
  Op& op = ops_[index];
  op.held_by_peer = false;
  const bool over = op.answered || op.abandoned() || why == KELP_DEADLINE;
  if (!over && go_elsewhere(index, why)) return;
  end(index, over ? KELP_DEADLINE : why);
}

void Worker::passed_over(GatewayLink& link) {
  counters_.peer_late.add();
  peers_.heard(link);
}

void Worker::released(std::uint32_t owner) {
  ops_[owner].peer = nullptr;
  leave_peer(owner, KELP_UNAVAILABLE);
}

void Worker::lost(std::uint32_t owner) {
  ops_[owner].peer = nullptr;
  leave_peer(owner, KELP_UNAVAILABLE);
}

/// Nobody waits for them any more: their deadline has passed, their client is gone, or their peer
/// has had its time and another path is tried, once nothing can land in the buffer any more.
void Worker::let_go_overdue(Ticks now) noexcept {
  for (OpIndex each = peer_waits_.first(); each != kNoOp;) {
    const OpIndex index = each;
    each = peer_waits_.after(each);
    Op& op = ops_[index];
    const bool over = now >= op.deadline || op.abandoned();
    if (over && op.held_by_peer) {
      if (!op.answered) answer_held(op);
      continue;
    }
    if (op.held_by_peer || op.answered || (now < op.peer_deadline && !over)) continue;
    GatewayLink& link = *op.peer;
    if (now >= op.peer_deadline) peers_.suspect(link, now);
    if (link.let_go(op.slot)) {
      op.peer = nullptr;
      leave_peer(index, over ? KELP_DEADLINE : KELP_UNAVAILABLE);
      continue;
    }
    op.held_by_peer = true;
    if (over) answer_held(op);
  }
}

}  // namespace kelp
