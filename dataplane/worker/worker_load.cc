// Requests of the worker's own load generator: see load_generator.h.
#include "dataplane/worker/worker.h"

namespace kelp {

std::uint32_t Worker::generate() noexcept {
  const Ticks now = ticks_now();
  std::uint32_t begun = 0;
  while (begun < kBatch && !free_.empty() && !draining_) {
    const std::optional<LoadGenerator::Next> next = load_->next(now);
    if (!next) break;
    begin_generated(*next, now);
    ++begun;
  }
  if (draining_) load_->stop();
  if (load_->finish_if_over(now)) {
    load_ = nullptr;
    if (control_ != nullptr) control_->notify();
  }
  return begun;
}

void Worker::begin_generated(const LoadGenerator::Next& next, Ticks now) noexcept {
  const OpIndex index = free_.pop_front();
  Op& op = ops_[index];
  op.reset();
  op.origin = next.slot;
  op.submission = {};
  op.submission.op = OpCode::kRead;
  op.submission.volume = static_cast<std::uint32_t>(next.fid.volume);
  op.submission.needle = static_cast<std::uint64_t>(next.fid.needle);
  op.submission.cookie = static_cast<std::uint32_t>(next.fid.cookie);
  op.went_elsewhere = remote_ == nullptr;
  op.buffer = next.buffer;
  op.taken = now;
  op.deadline =
      now + rate_.from_us(static_cast<std::uint64_t>(load_->plan().timeout.count()) * 1000);
  op.state = OpState::kRouting;
  routing_.push_back(index);
}

void Worker::end_generated(const Op& op, const ReadOutcome& outcome) noexcept {
  const kelp_status status = op.answered ? KELP_DEADLINE : outcome.status;
  load_->ended(op.origin, status, op.path, outcome.bytes, op.taken, ticks_now());
}

}  // namespace kelp
