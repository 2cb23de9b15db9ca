#include "shm_ring/client_ring.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstddef>

#include "shm_ring/wake_flag.h"

namespace kelp {
namespace {

// The words of a Completion are those of a kelp_completion but for the order and the tag.
static_assert(offsetof(kelp_completion, total) == 8 && offsetof(kelp_completion, bytes) == 16);
static_assert(offsetof(kelp_completion, flags) == 20 && offsetof(Completion, flags) == 4);
static_assert(offsetof(kelp_completion, status) == 22 && offsetof(Completion, status) == 6);
static_assert(offsetof(kelp_completion, path) == 23 && offsetof(Completion, path) == 7);
static_assert(offsetof(kelp_completion, attempts) == 24 && offsetof(Completion, attempts) == 28);

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
      free_places_(layout.submission_entries),
      free_count_(layout.submission_entries),
      client_wake_(std::move(client_wake)),
      worker_wake_(std::move(worker_wake)) {
  for (std::uint32_t i = 0; i < free_count_; ++i) free_places_[i] = free_count_ - 1 - i;
}

kelp_status ClientRing::submit(const kelp_request& request, BufferRange buffer, std::uint64_t extra,
                               std::uint32_t timeout_us, Ticks deadline) noexcept {
  if (free_count_ == 0 || !submissions_.has_space()) return KELP_RING_FULL;
  if (buffer.length != 0) {
    const kelp_status status = buffers_.begin_write(buffer.offset, buffer.length);
    if (status != KELP_OK) return status;
  }
  const std::uint32_t index = free_places_[--free_count_];
  Place& place = places_[index];
  place.user_tag = request.tag;
  place.buffer = buffer;
  place.deadline = deadline;
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
  entry.buffer_offset_bytes = buffer.offset;
  entry.length_bytes = buffer.length;
  entry.timeout_us = timeout_us;
  entry.extra = extra;
  submissions_.push(entry);
  return KELP_OK;
}

void ClientRing::wake_worker() noexcept {
  if (!take_wake_flag(&control_->worker_sleeps)) return;
  const std::uint64_t one = 1;
  // The daemon made it non-blocking; a full counter means a wake-up is pending already.
  [[maybe_unused]] const ssize_t written = ::write(worker_wake_.get(), &one, sizeof one);
}

void ClientRing::end_write(Place& place) noexcept {
  if (place.range_held) [[unlikely]] {
    buffers_.unhold(place.buffer.offset, place.buffer.length);
    place.range_held = false;
  }
  buffers_.end_write(place.buffer.offset);
}

inline void ClientRing::free_place(std::uint32_t index) noexcept {
  Place& place = places_[index];
  if (place.buffer.length != 0) end_write(place);
  place.state = PlaceState::kFree;
  ++place.generation;  // what still comes under the old tag fits nothing
  free_places_[free_count_++] = index;
}

std::uint32_t ClientRing::reap(kelp_completion* out, std::uint32_t max) noexcept {
  std::uint32_t count = 0;
  EntryWords<Completion> words;
  while (count < max && completions_.pop_words(words)) {
    if (accept(words, out[count])) ++count;
  }
  completions_.publish_head();
  return count;
}

bool ClientRing::accept(const EntryWords<Completion>& words, kelp_completion& out) noexcept {
  const std::uint64_t tag = words[1];
  const std::uint32_t index = low_half(tag);
  // The daemon is trusted with bytes, not with our memory: a tag that fits nothing is dropped.
  if (index >= capacity() || places_[index].generation != high_half(tag)) return false;
  const Place& place = places_[index];
  constexpr std::uint32_t kAboutHeld = kFlagReleased | KELP_FLAG_BUFFER_HELD;
  if (place.state != PlaceState::kInFlight || (high_half(words[0]) & kAboutHeld) != 0)
      [[unlikely]] {
    return accept_unusual(words, index, out);
  }
  answer(place, words, out);
  free_place(index);
  return true;
}

bool ClientRing::accept_unusual(EntryWords<Completion> words, std::uint32_t index,
                                kelp_completion& out) noexcept {
  const std::uint16_t flags = from_words<Completion>(words).flags;
  Place& place = places_[index];
  if (place.state == PlaceState::kFree) return false;
  if ((flags & kFlagReleased) != 0) {
    // Only what was held can be released; anyone else is still owed an answer.
    if (place.state == PlaceState::kHeld) free_place(index);
    return false;
  }
  const bool owed = place.state == PlaceState::kInFlight;
  if (owed) answer(place, words, out);
  if ((flags & KELP_FLAG_BUFFER_HELD) != 0) {
    place.state = PlaceState::kHeld;
    hold_buffer(place);
  } else {
    free_place(index);
  }
  return owed;
}

inline void ClientRing::answer(const Place& place, const EntryWords<Completion>& words,
                               kelp_completion& out) noexcept {
  --unanswered_;
  const std::uint32_t bytes = std::min(low_half(words[3]), place.buffer.length);
  const std::uint8_t attempts = static_cast<std::uint8_t>(high_half(words[3]));
  out = std::bit_cast<kelp_completion>(EntryWords<Completion>{
      place.user_tag, words[2], two_halves(bytes, high_half(words[0])), attempts});
}

void ClientRing::hold_buffer(Place& place) noexcept {
  if (place.buffer.length == 0 || place.range_held) return;
  place.range_held = true;
  buffers_.hold(place.buffer.offset, place.buffer.length);
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
    if (place.buffer.length != 0) answer.flags = KELP_FLAG_BUFFER_HELD;
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
