// One thread's way to the daemon: a ring per worker, chosen by volume.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "shm_ring/client_ring.h"
#include "shm_ring/connection.h"

namespace kelp {

class Channel {
 public:
  /// Channel `index` of `connection`, which outlives it.
  Channel(Connection& connection, std::uint32_t index);
  ~Channel();

  /// See kelp_submit().
  kelp_status submit(const kelp_request* requests, std::uint32_t count,
                     std::uint32_t* accepted) noexcept;

  /// See kelp_reap().
  [[gnu::flatten]] kelp_status reap(kelp_completion* out, std::uint32_t max,
                                    std::uint64_t timeout_us, std::uint32_t* reaped) noexcept;

  /// See kelp_channel_fds(): one per worker, and the daemon's socket.
  std::uint32_t wake_fds(int* fds, std::uint32_t max) const noexcept;
  /// See kelp_channel_arm(). True: there is a completion.
  bool arm() noexcept;
  void disarm(bool woken) noexcept;

  std::uint32_t unanswered() const noexcept;
  std::uint32_t capacity() const noexcept;
  Connection& connection() noexcept { return connection_; }

  /// Why submit() refused: a sentence with no memory behind it.
  const char* refusal() const noexcept { return refusal_; }

 private:
  /// Calls of reap() that find completions between two looks at the clock.
  static constexpr std::uint32_t kReapsPerClock = 64;

  kelp_status submit_one(const kelp_request& request, Ticks now) noexcept;
  void wake_workers() noexcept;
  kelp_status refuse(kelp_status status, const char* why) noexcept;
  /// The part of reap() that may spin and sleep.
  [[gnu::noinline]] kelp_status wait_and_reap(kelp_completion* out, std::uint32_t max,
                                              std::uint64_t timeout_us,
                                              std::uint32_t* reaped) noexcept;
  std::uint32_t poll_rings(kelp_completion* out, std::uint32_t max) noexcept;
  [[gnu::noinline]] std::uint32_t reap_overdue(Ticks now, kelp_completion* out,
                                               std::uint32_t max) noexcept;
  bool beside_worker() const noexcept;
  Ticks earliest_deadline() const noexcept;
  bool daemon_alive(Ticks now) noexcept;
  void sleep_until(Ticks wake_at) noexcept;

  Connection& connection_;
  const std::uint32_t index_;
  const TickRate& rate_;
  std::vector<ClientRing*> rings_;   // by worker
  ClientRing* only_ring_ = nullptr;  // where there is one worker: no division, no turns
  std::uint32_t next_ring_ = 0;      // where the next poll starts, so no worker starves
  std::uint32_t reaps_to_clock_ = kReapsPerClock;
  std::uint32_t long_waits_ = 0;  // of the last, those longer than it may spin
  const char* refusal_ = "";
  Ticks heartbeat_checked_ = 0;
  std::uint64_t heartbeat_seen_ = 0;
};

}  // namespace kelp
