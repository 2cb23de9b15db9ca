// Requests that only another host can answer: out by the remote lane, and back. See remote_lane.h.
#include <utility>

#include "dataplane/worker/worker.h"
#include "shm_ring/hints.h"

namespace kelp {

/// Statuses that are not final: the read may succeed another way.
bool Worker::may_go_elsewhere(const Op& op, kelp_status status) const noexcept {
  const bool final =
      status != KELP_UNAVAILABLE && status != KELP_USE_HTTP && status != KELP_CORRUPT;
  if (final) [[likely]]
    return false;
  return !op.answered && !op.abandoned() && may_go_elsewhere(op);
}

/// Once, by the worker of its ring. Not while this one is to end or is switched off, which the
/// worker that a request was forwarded to cannot answer for. acquire: see route_waiting().
bool Worker::may_go_elsewhere(const Op& op) const noexcept {
  return !op.went_elsewhere && (op.ring != nullptr || op.generated()) && !draining_ &&
         live_.serving.load(std::memory_order_acquire);
}

/// The op is in no list. False: it stays the caller's, nothing has happened.
bool Worker::go_elsewhere(OpIndex index, kelp_status why) noexcept {
  Op& op = ops_[index];
  if (!may_go_elsewhere(op)) return false;
  if (op.peers_asked == 0) op.tried_here = why == KELP_CORRUPT;
  if (ask_peer(index)) return true;
  unpin(op);
  lend(index, why);
  return true;
}

/// The op, which is in no list, and its buffer are the remote lane's.
void Worker::lend(OpIndex index, kelp_status why) noexcept {
  Op& op = ops_[index];
  op.went_elsewhere = true;
  RemoteRequest request;
  request.kind =
      op.submission.op == OpCode::kStat ? RemoteRequest::Kind::kStat : RemoteRequest::Kind::kRead;
  request.op = index;
  request.fid = {VolumeId{op.submission.volume}, NeedleId{op.submission.needle},
                 Cookie{op.submission.cookie}};
  request.offset_bytes = op.submission.offset_bytes;
  request.buffer = op.buffer;
  if (op.submission.extra != 0) {
    // Looked at when the request began.
    request.hints = op.segment->resolve(op.submission.extra - 1, kHintsBytes).value();
  }
  request.deadline = op.deadline;
  request.why = why;
  counters_.remote.add();
  op.state = OpState::kRemoteWait;
  remote_waits_.push_back(index);
  remote_->requests.try_push(std::move(request));
  remote_->reader->notify();
}

std::uint32_t Worker::take_remote() noexcept {
  std::uint32_t taken = 0;
  for (; taken < kBatch; ++taken) {
    const std::optional<RemoteAnswer> answer = remote_->answers.try_pop();
    if (!answer) break;
    remote_waits_.remove(answer->op);
    Op& op = ops_[answer->op];
    op.path = answer->path;
    op.remote_attempts = static_cast<std::uint8_t>(op.remote_attempts + answer->attempts);
    if (answer->outcome.status == KELP_OK) learn_route(op, answer->peer);
    end(answer->op, answer->outcome);
  }
  return taken;
}

/// Nobody waits for the answers of a client that is gone, but its memory can go only after them;
/// nor for those of a load that a drain has stopped.
void Worker::cancel_abandoned() noexcept {
  for (OpIndex index = remote_waits_.first(); index != kNoOp; index = remote_waits_.after(index)) {
    const Op& op = ops_[index];
    if (op.abandoned() || (draining_ && op.generated())) ask_back(index);
  }
}

/// The answer of what was lent is wanted soon, whatever it is.
void Worker::ask_back(OpIndex index) noexcept {
  if (std::exchange(ops_[index].cancelled, true)) return;
  RemoteRequest request;
  request.kind = RemoteRequest::Kind::kCancel;
  request.op = index;
  remote_->requests.try_push(std::move(request));
  remote_->reader->notify();
}

}  // namespace kelp
