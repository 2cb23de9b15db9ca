#include "dataplane/worker/server_ring.h"

#include <sys/socket.h>

#include "dataplane/worker/client.h"
#include "shm_ring/kelp.h"
#include "shm_ring/wake_flag.h"

namespace kelp {
namespace {

std::uint64_t* words_at(std::byte* base, std::size_t offset) {
  return reinterpret_cast<std::uint64_t*>(base + offset);
}

}  // namespace

ServerRing::ServerRing(Client& client, std::uint32_t index, UniqueFd client_wake,
                       UniqueFd worker_wake)
    : client_(client),
      share_(client.shares[index % client.shares.size()]),
      control_(reinterpret_cast<RingControl*>(client.segment->ring_block(index))),
      client_wake_(std::move(client_wake)),
      worker_wake_(std::move(worker_wake)) {
  const SegmentLayout& layout = client.segment->layout();
  std::byte* block = client.segment->ring_block(index);
  submissions_ = RingConsumer<Submission>(words_at(block, layout.submissions_offset()),
                                          layout.submission_entries, &control_->submission_head);
  completions_ = RingProducer<Completion>(words_at(block, layout.completions_offset()),
                                          layout.completion_entries, &control_->completion_head);
}

ServerRing::Intake ServerRing::take(Submission& out) noexcept {
  const std::optional<Submission> submission = submissions_.pop();
  if (!submission) return Intake::kEmpty;
  const std::uint32_t unreaped = completions_.unconsumed();
  if (unreaped > completions_.capacity() || reserved_ + unreaped + 2 > completions_.capacity()) {
    return Intake::kBroken;
  }
  out = *submission;
  ++in_flight_;
  reserved_ += 2;
  return Intake::kTaken;
}

void ServerRing::complete(const Completion& completion) noexcept {
  if ((completion.flags & KELP_FLAG_BUFFER_HELD) != 0) {
    --reserved_;
  } else {
    // A released request had one slot left; every other one has both.
    reserved_ -= (completion.flags & kFlagReleased) != 0 ? 1 : 2;
    --in_flight_;
  }
  completions_.push(completion);
  touched = true;
}

bool ServerRing::wake_client() noexcept {
  if (!take_wake_flag(&control_->client_sleeps)) return false;
  const char byte = 1;
  // A full socket means that wake-ups are pending already.
  [[maybe_unused]] const ssize_t sent =
      ::send(client_wake_.get(), &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
  return true;
}

void ServerRing::arm_sleep() noexcept {
  arm_wake_flag(&control_->worker_sleeps);
}
void ServerRing::disarm_sleep() noexcept {
  disarm_wake_flag(&control_->worker_sleeps);
}

void ServerRing::beat() noexcept {
  __atomic_store_n(&control_->heartbeat, ++beats_, __ATOMIC_RELAXED);  // relaxed: orders nothing
}

void ServerRing::show_cpu(std::uint32_t cpu) noexcept {
  __atomic_store_n(&control_->cpu, cpu, __ATOMIC_RELAXED);  // relaxed: a hint
}

void ServerRing::set_state(RingState state) noexcept {
  __atomic_store_n(&control_->state, static_cast<std::uint32_t>(state), __ATOMIC_RELEASE);
}

}  // namespace kelp
