// One ring as its client sees it: submission producer, completion consumer, and the table of
// requests whose buffers the daemon may still write into.
//
// One thread at a time. The table has as many places as the submission ring has slots, and a place
// stays taken until its last completion is reaped. The completion ring has two slots for each: a
// request whose buffer is held is completed twice. So a completion always finds space.
#pragma once

#include <cstdint>
#include <vector>

#include "shm_ring/buffer_pool.h"
#include "shm_ring/kelp.h"
#include "shm_ring/layout.h"
#include "shm_ring/ring.h"
#include "shm_ring/ticks.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

/// Part of the data area that a request may be answered in; a no-op has none, length 0.
struct BufferRange {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};

class ClientRing {
 public:
  /// `block` is the ring's block in the segment. The descriptors are owned from here on.
  ClientRing(std::byte* block, const SegmentLayout& layout, BufferPool& buffers,
             UniqueFd client_wake, UniqueFd worker_wake);

  /// Takes one request; it is published at once. KELP_RING_FULL, KELP_BAD_BUFFER, KELP_BUFFER_BUSY.
  /// `buffer` is the place of request.buffer in the data area.
  kelp_status submit(const kelp_request& request, BufferRange buffer, std::uint64_t extra,
                     std::uint32_t timeout_us, Ticks deadline) noexcept;

  /// After a batch of submissions and announce_batch(): wakes the worker if it sleeps.
  void wake_worker() noexcept;

  /// Moves up to `max` completions to `out`; returns how many. Publishes the head.
  std::uint32_t reap(kelp_completion* out, std::uint32_t max) noexcept;

  /// Requests the daemon has left unanswered beyond their deadlines are answered here, with
  /// KELP_DEADLINE and the buffer held until the daemon lets go of it. Returns how many.
  std::uint32_t reap_overdue(Ticks now, kelp_completion* out, std::uint32_t max) noexcept;

  /// No request is overdue before this time. May be early, never late.
  Ticks earliest_deadline() const noexcept { return earliest_deadline_; }

  /// Requests that still owe their caller an answer.
  std::uint32_t unanswered() const noexcept { return unanswered_; }

  /// The channel's owner leaves: answers to come are swallowed.
  void orphan_requests() noexcept;

  /// Without an owner: takes what has come since, which gives back the buffers of orphans.
  void swallow_completions() noexcept;

  bool ready() const noexcept { return completions_.ready(); }
  std::uint32_t capacity() const noexcept { return submissions_.capacity(); }
  std::uint64_t heartbeat() const noexcept;
  /// Where the worker runs, or kNoCpu.
  std::uint32_t worker_cpu() const noexcept;
  RingState state() const noexcept;

  void arm_sleep() noexcept;
  void disarm_sleep() noexcept;
  int client_wake_fd() const noexcept { return client_wake_.get(); }

  /// In a child of fork(): closes its copies of the descriptors, nothing else.
  void close_descriptors() noexcept;

 private:
  enum class PlaceState : std::uint8_t {
    kFree,
    kInFlight,   // the caller waits for an answer
    kAbandoned,  // answered here, or the caller is gone; the daemon's answer is to come
    kHeld,       // answered by the daemon, its RELEASED is to come
  };
  struct Place {
    std::uint64_t user_tag = 0;
    Ticks deadline = 0;
    BufferRange buffer;
    std::uint32_t generation = 1;  // no tag is 0
    PlaceState state = PlaceState::kFree;
    bool range_held = false;
  };

  /// Takes a completion; true if it answers a request.
  bool accept(const EntryWords<Completion>& words, kelp_completion& out) noexcept;
  /// The same for what is held, released, nobody's any more, or nonsense. In words, so that
  /// the usual completion stays in registers.
  [[gnu::noinline, gnu::cold]] bool accept_unusual(EntryWords<Completion> words,
                                                   std::uint32_t index,
                                                   kelp_completion& out) noexcept;
  inline void answer(const Place& place, const EntryWords<Completion>& words,
                     kelp_completion& out) noexcept;
  inline void free_place(std::uint32_t index) noexcept;
  [[gnu::noinline]] void end_write(Place& place) noexcept;
  void hold_buffer(Place& place) noexcept;

  RingControl* control_;
  BufferPool& buffers_;
  RingProducer<Submission> submissions_;
  RingConsumer<Completion> completions_;
  std::vector<Place> places_;
  std::vector<std::uint32_t> free_places_;  // a stack of free_count_
  std::uint32_t free_count_ = 0;
  std::uint32_t unanswered_ = 0;
  Ticks earliest_deadline_ = UINT64_MAX;
  UniqueFd client_wake_;
  UniqueFd worker_wake_;
};

}  // namespace kelp
