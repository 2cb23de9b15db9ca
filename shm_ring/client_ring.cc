#include "shm_ring/client_ring.h"

#include <unistd.h>

#include <algorithm>

#include "shm_ring/wake_flag.h"

namespace kelp {
namespace {

std::uint64_t* words_at(std::byte* base, std::size_t offset) {
  return reinterpret_cast<std::uint64_t*>(base + offset);
}

}  // namespace

ClientRing::ClientRing(std::byte* block, const SegmentLayout& layout, BufferPool& buffers,
                       UniqueFd client_wake, UniqueFd worker_wake)
    : control_(reinterpret_cast<RingControl*>(block)),
      buffers_(buffers),
      submissions_(words_at(block, layout.submissions_offset()), layout.submission_entries,
                   &control_->submission_head),
      completions_(words_at(block, layout.completions_offset()), layout.completion_entries,
                   &control_->completion_head),
      places_(layout.submission_entries),
      client_wake_(std::move(client_wake)),
      worker_wake_(std::move(worker_wake)) {
  free_places_.reserve(places_.size());
  for (std::uint32_t i = layout.submission_entries; i > 0; --i) free_places_.push_back(i - 1);
}

kelp_status ClientRing::submit(const kelp_request& request, std::uint64_t buffer_offset,
                               std::uint32_t timeout_us, Ticks deadline) noexcept {
  if (free_places_.empty() || !submissions_.has_space()) return KELP_RING_FULL;
  const bool has_buffer = request.op != KELP_OP_NOP;
  if (has_buffer) {
    const kelp_status status = buffers_.begin_write(buffer_offset, request.length);
    if (status != KELP_OK) return status;
  }
  const std::uint32_t index = free_places_.back();
  free_places_.pop_back();
  Place& place = places_[index];
  ++place.generation;
  place.user_tag = request.tag;
  place.buffer_offset = buffer_offset;
  place.length = request.length;
  place.deadline = deadline;
  place.has_buffer = has_buffer;
  place.state = PlaceState::kInFlight;
  ++unanswered_;
  earliest_deadline_ = std::min(earliest_deadline_, deadline);

  Submission entry{};
  entry.op = static_cast<OpCode>(request.op);
  entry.tag = (std::uint64_t{place.generation} << 32) | index;
  entry.needle = request.fid.needle;
  entry.volume = request.fid.volume;
  entry.cookie = request.fid.cookie;
  entry.offset_bytes = request.offset;
  entry.buffer_offset_bytes = has_buffer ? buffer_offset : 0;
  entry.length_bytes = has_buffer ? request.length : 0;
  entry.timeout_us = timeout_us;
  submissions_.push(entry);
  return KELP_OK;
}

void ClientRing::wake_worker() noexcept {
  announce_batch();
  if (!take_wake_flag(&control_->worker_sleeps)) return;
  const std::uint64_t one = 1;
  // The daemon made it non-blocking; a full counter means a wake-up is pending already.
  [[maybe_unused]] const ssize_t written = ::write(worker_wake_.get(), &one, sizeof one);
}

std::uint32_t ClientRing::reap(kelp_completion* out, std::uint32_t max) noexcept {
  std::uint32_t count = 0;
  while (count < max) {
    const std::optional<Completion> completion = completions_.pop();
    if (!completion) break;
    if (accept(*completion, out[count])) ++count;
  }
  completions_.publish_head();
  return count;
}

bool ClientRing::accept(const Completion& completion, kelp_completion& out) noexcept {
  const auto index = static_cast<std::uint32_t>(completion.tag);
  const auto generation = static_cast<std::uint32_t>(completion.tag >> 32);
  // The daemon is trusted with bytes, not with our memory: a tag that fits nothing is dropped.
  if (index >= places_.size()) return false;
  Place& place = places_[index];
  if (place.state == PlaceState::kFree || place.generation != generation) return false;

  if ((completion.flags & kFlagReleased) != 0) {
    // Only what was held can be released; anyone else is still owed an answer.
    if (place.state == PlaceState::kHeld) free_place(index);
    return false;
  }
  const bool owed = place.state == PlaceState::kInFlight;
  if (owed) {
    --unanswered_;
    out = {};
    out.tag = place.user_tag;
    out.total = completion.total_bytes;
    out.bytes = std::min(completion.bytes, place.length);
    out.flags = completion.flags;
    out.status = completion.status;
    out.path = completion.path;
    out.attempts = completion.attempts;
  }
  if ((completion.flags & KELP_FLAG_BUFFER_HELD) != 0) {
    place.state = PlaceState::kHeld;
    hold_buffer(place);
  } else {
    free_place(index);
  }
  return owed;
}

void ClientRing::hold_buffer(Place& place) noexcept {
  if (!place.has_buffer || place.range_held) return;
  place.range_held = true;
  buffers_.hold(place.buffer_offset, place.length);
}

void ClientRing::free_place(std::uint32_t index) noexcept {
  Place& place = places_[index];
  if (place.range_held) buffers_.unhold(place.buffer_offset, place.length);
  if (place.has_buffer) buffers_.end_write(place.buffer_offset);
  place.range_held = false;
  place.state = PlaceState::kFree;
  free_places_.push_back(index);
}

std::uint32_t ClientRing::reap_overdue(Ticks now, kelp_completion* out,
                                       std::uint32_t max) noexcept {
  std::uint32_t count = 0;
  Ticks earliest = UINT64_MAX;
  for (Place& place : places_) {
    if (place.state != PlaceState::kInFlight) continue;
    if (place.deadline > now || count == max) {
      earliest = std::min(earliest, place.deadline);
      continue;
    }
    place.state = PlaceState::kAbandoned;
    hold_buffer(place);
    --unanswered_;
    kelp_completion& answer = out[count++];
    answer = {};
    answer.tag = place.user_tag;
    answer.status = KELP_DEADLINE;
    if (place.has_buffer) answer.flags = KELP_FLAG_BUFFER_HELD;
  }
  earliest_deadline_ = earliest;
  return count;
}

void ClientRing::orphan_requests() noexcept {
  for (Place& place : places_) {
    if (place.state == PlaceState::kInFlight) place.state = PlaceState::kAbandoned;
  }
  unanswered_ = 0;
  earliest_deadline_ = UINT64_MAX;
}

void ClientRing::swallow_completions() noexcept {
  kelp_completion nobodys;
  reap(&nobodys, 1);  // none is owed to anyone, so this takes all there are
}

std::uint64_t ClientRing::heartbeat() const noexcept {
  return __atomic_load_n(&control_->heartbeat, __ATOMIC_RELAXED);  // relaxed: orders nothing
}

std::uint32_t ClientRing::worker_cpu() const noexcept {
  return __atomic_load_n(&control_->cpu, __ATOMIC_RELAXED);  // relaxed: a hint
}

RingState ClientRing::state() const noexcept {
  return static_cast<RingState>(__atomic_load_n(&control_->state, __ATOMIC_ACQUIRE));
}

void ClientRing::arm_sleep() noexcept {
  arm_wake_flag(&control_->client_sleeps);
}
void ClientRing::disarm_sleep() noexcept {
  disarm_wake_flag(&control_->client_sleeps);
}

void ClientRing::close_descriptors() noexcept {
  client_wake_.reset();
  worker_wake_.reset();
}

}  // namespace kelp
