// Requests for volumes of other workers: out, in, and back. See forwarding.h.
#include "dataplane/worker/worker.h"

namespace kelp {

void Worker::introduce(const std::vector<std::unique_ptr<Worker>>& workers) {
  for (const auto& from : workers) {
    from->outgoing_.resize(workers.size());
    from->incoming_.resize(workers.size());
  }
  for (const auto& from : workers) {
    for (const auto& to : workers) {
      if (from == to) continue;
      auto link = std::make_shared<ForwardLink>(from->options_.ops, from->waker_, to->waker_);
      to->incoming_[from->options_.index] = link;
      from->outgoing_[to->options_.index] = std::move(link);
    }
  }
}

void Worker::forward(OpIndex index) noexcept {
  // Half of the ops stay for volumes of our own: they end by themselves, so two workers full of
  // requests for each other still take each other's.
  if (forwarded_.size() >= options_.ops / 2) {
    end(index, KELP_UNAVAILABLE);
    return;
  }
  counters_.forwarded.add();
  Op& op = ops_[index];
  ForwardLink& link = *outgoing_[owner_of(VolumeId{op.submission.volume}, options_.workers)];
  op.state = OpState::kForwarded;
  op.given_up.store(false, std::memory_order_relaxed);
  forwarded_.push_back(index);
  link.requests.try_push({index, op.submission, op.buffer, op.segment, op.deadline, &op.given_up});
  link.owner.notify();
}

std::uint32_t Worker::take_forwarded() noexcept {
  std::uint32_t taken = 0;
  for (const auto& link : outgoing_) {
    if (link == nullptr) continue;
    for (; const std::optional<ForwardedAnswer> answer = link->answers.try_pop(); ++taken) {
      forwarded_.remove(answer->origin);
      ops_[answer->origin].path = answer->path;
      end(answer->origin, answer->outcome);
    }
  }
  for (const auto& link : incoming_) {
    if (link == nullptr) continue;
    for (; taken < kBatch && !free_.empty(); ++taken) {
      const std::optional<ForwardedRequest> request = link->requests.try_pop();
      if (!request) break;
      begin_forwarded(*link, *request);
    }
  }
  return taken;
}

void Worker::begin_forwarded(ForwardLink& from, const ForwardedRequest& request) noexcept {
  const OpIndex index = free_.pop_front();
  Op& op = ops_[index];
  op.reset();
  op.link = &from;
  op.origin = request.origin;
  op.origin_given_up = request.given_up;
  op.segment = request.segment;
  op.submission = request.submission;
  op.went_elsewhere = remote_ == nullptr;
  op.peers_asked = kNoPeersToAsk;  // the worker of its ring asks
  op.buffer = request.buffer;
  op.taken = ticks_now();
  op.deadline = request.deadline;
  if (draining_) {
    end(index, KELP_UNAVAILABLE);
    return;
  }
  op.state = OpState::kRouting;
  routing_.push_back(index);
}

void Worker::send_back(const Op& op, const ReadOutcome& outcome) noexcept {
  op.link->answers.try_push({op.origin, outcome, op.path});
  op.link->sender.notify();
}

}  // namespace kelp
