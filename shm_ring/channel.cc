#include "shm_ring/channel.h"

#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "shm_ring/hints.h"
#include "shm_ring/wake_flag.h"

namespace kelp {
namespace {

/// The daemon ends a request at its deadline; only if it does not, the library does, this much
/// later.
constexpr std::uint64_t kGraceUs = 20'000;

/// Turns of the polling loop between two looks at the clock.
constexpr std::uint32_t kPollsPerClock = 64;

/// The part of spin_us that is spun while it does not pay.
constexpr std::uint64_t kShortSpin = 25;
/// So many waits in a row, each longer than it may spin, are how it is; fewer are bad luck.
constexpr std::uint32_t kTimesLong = 4;

/// Longest sleep before the clock and the daemon are looked at again.
constexpr std::uint64_t kLongestSleepUs = 1'000'000;

/// Stale wake-ups are swallowed together; a late one only costs a turn of the loop.
void swallow_wakes(int fd) noexcept {
  std::array<char, 64> bytes;
  while (::recv(fd, bytes.data(), bytes.size(), MSG_DONTWAIT) ==
         static_cast<ssize_t>(bytes.size())) {
  }
}

}  // namespace

Channel::Channel(Connection& connection, std::uint32_t index)
    : connection_(connection), index_(index), rate_(TickRate::instance()) {
  Attachment& attachment = connection.attachment();
  const std::uint32_t workers = attachment.reply.workers;
  for (std::uint32_t worker = 0; worker < workers; ++worker) {
    rings_.push_back(attachment.rings[index_ * workers + worker].get());
  }
  if (workers == 1) only_ring_ = rings_.front();
}

Channel::~Channel() {
  for (ClientRing* ring : rings_) ring->orphan_requests();
}

kelp_status Channel::refuse(kelp_status status, const char* why) noexcept {
  refusal_ = why;
  return status;
}

kelp_status Channel::submit(const kelp_request* requests, std::uint32_t count,
                            std::uint32_t* accepted) noexcept {
  if (accepted != nullptr) *accepted = 0;
  if (connection_.forked()) {
    return refuse(KELP_FORKED, "this connection belongs to the parent process");
  }
  if (connection_.disconnected()) return refuse(KELP_DISCONNECTED, "kelpd is gone");
  if (requests == nullptr && count != 0) return refuse(KELP_USAGE, "requests is NULL");

  const Ticks now = ticks_now();
  kelp_status status = KELP_OK;
  std::uint32_t taken = 0;
  while (taken < count && (status = submit_one(requests[taken], now)) == KELP_OK) ++taken;
  if (accepted != nullptr) *accepted = taken;
  if (taken > 0) wake_workers();
  return status;
}

void Channel::wake_workers() noexcept {
  announce_batch();  // one fence for all rings
  if (only_ring_ != nullptr) {
    only_ring_->wake_worker();
    return;
  }
  for (ClientRing* ring : rings_) ring->wake_worker();
}

kelp_status Channel::submit_one(const kelp_request& request, Ticks now) noexcept {
  Attachment& attachment = connection_.attachment();
  BufferRange buffer;
  std::uint64_t extra = 0;
  if (request.reserved != 0) return refuse(KELP_USAGE, "kelp_request.reserved is not 0");
  if (request.op != KELP_OP_NOP) {
    if (request.op > KELP_OP_NOP) return refuse(KELP_USAGE, "no such op");
    if (request.length == 0) return refuse(KELP_USAGE, "length is 0; it is the buffer's capacity");
    if (!attachment.data.contains(request.buffer)) {
      return refuse(KELP_BAD_BUFFER,
                    "the buffer is not from kelp_buffer_alloc() of this connection");
    }
    buffer.offset = static_cast<std::uint64_t>(static_cast<std::byte*>(request.buffer) -
                                               attachment.data.data());
    buffer.length = request.length;
  }
  if (request.hints != nullptr) [[unlikely]] {
    const auto* const block = static_cast<const std::byte*>(request.hints);
    if (request.op == KELP_OP_NOP) return refuse(KELP_USAGE, "a no-op takes no hints");
    if ((attachment.reply.features & kFeatureExtraBlock) == 0) {
      return refuse(KELP_VERSION, "this kelpd takes no hints");
    }
    if (!attachment.data.contains(block) || !attachment.data.contains(block + kHintsBytes - 1)) {
      return refuse(KELP_BAD_BUFFER,
                    "the hints are not from kelp_buffer_alloc() of this connection");
    }
    extra = 1 + static_cast<std::uint64_t>(block - attachment.data.data());
  }
  const std::uint32_t timeout_us =
      request.timeout_us != 0 ? request.timeout_us : connection_.options().timeout_us;
  const std::uint64_t capped_us =
      std::min<std::uint64_t>(timeout_us, attachment.reply.max_timeout_us);
  ClientRing& ring =
      only_ring_ != nullptr ? *only_ring_ : *rings_[request.fid.volume % rings_.size()];
  if (ring.state() != RingState::kServing) {
    return refuse(KELP_DISCONNECTED,
                  ring.state() == RingState::kDraining
                      ? "kelpd is stopping"
                      : "kelpd has cut this client off: it broke the ring protocol");
  }
  const kelp_status status =
      ring.submit(request, buffer, extra, static_cast<std::uint32_t>(capped_us),
                  now + rate_.from_us(capped_us + kGraceUs));
  switch (status) {
    case KELP_RING_FULL:
      return refuse(status, "the ring is full: reap completions first");
    case KELP_BAD_BUFFER:
      return refuse(status, "the buffer does not lie inside one allocation");
    case KELP_BUFFER_BUSY:
      return refuse(status, "an earlier read may still write into the buffer");
    default:
      return status;
  }
}

std::uint32_t Channel::poll_rings(kelp_completion* out, std::uint32_t max) noexcept {
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < rings_.size() && count < max; ++i) {
    count += rings_[next_ring_]->reap(out + count, max - count);
    if (++next_ring_ == rings_.size()) next_ring_ = 0;
  }
  return count;
}

kelp_status Channel::reap(kelp_completion* out, std::uint32_t max, std::uint64_t timeout_us,
                          std::uint32_t* reaped) noexcept {
  if (reaped != nullptr) *reaped = 0;
  if (out == nullptr || max == 0 || reaped == nullptr) {
    return refuse(KELP_USAGE, "kelp_reap() needs room for a completion and for their number");
  }
  if (connection_.forked()) {
    return refuse(KELP_FORKED, "this connection belongs to the parent process");
  }
  // A busy channel also ends what is overdue: one worker may stand still while others answer.
  std::uint32_t overdue = 0;
  if (--reaps_to_clock_ == 0) [[unlikely]] {
    reaps_to_clock_ = kReapsPerClock;
    overdue = reap_overdue(ticks_now(), out, max);
  }
  out += overdue;
  max -= overdue;
  *reaped = overdue + (only_ring_ != nullptr ? only_ring_->reap(out, max) : poll_rings(out, max));
  return *reaped > 0 ? KELP_OK : wait_and_reap(out, max, timeout_us, reaped);
}

kelp_status Channel::wait_and_reap(kelp_completion* out, std::uint32_t max,
                                   std::uint64_t timeout_us, std::uint32_t* reaped) noexcept {
  const Ticks start = ticks_now();
  const std::uint64_t sleepable_us = std::min<std::uint64_t>(timeout_us, 1ULL << 40);
  const Ticks end = start + rate_.from_us(sleepable_us);
  // Where what came lately was not worth spinning for, as over a network, the CPU is better left to
  // those who work on the answer; but for a look that is long enough for a read from memory.
  const Ticks spin = rate_.from_us(connection_.options().spin_us);
  const Ticks spin_end = start + (long_waits_ < kTimesLong ? spin : spin / kShortSpin);
  Ticks now = start;
  while (true) {
    *reaped = reap_overdue(now, out, max);
    if (*reaped > 0) return KELP_OK;
    if (!daemon_alive(now)) {
      // What it answered before it went is still in the ring.
      *reaped = poll_rings(out, max);
      return *reaped > 0 ? KELP_OK : refuse(KELP_DISCONNECTED, "kelpd is gone");
    }
    if (now >= end) return KELP_OK;
    if (now < spin_end && !beside_worker()) {
      for (std::uint32_t i = 0; i < kPollsPerClock; ++i) {
        *reaped = poll_rings(out, max);
        if (*reaped > 0) {
          long_waits_ = 0;
          return KELP_OK;
        }
        cpu_relax();
      }
      now = ticks_now();
    } else {
      sleep_until(end);
      *reaped = poll_rings(out, max);
      now = ticks_now();
      // Not that it slept, but how long it took: who waits with short looks sleeps through answers
      // that are only a little slower than such a look.
      long_waits_ = now - start < spin ? 0 : std::min(long_waits_ + 1, kTimesLong);
      if (*reaped > 0) return KELP_OK;
    }
  }
}

std::uint32_t Channel::reap_overdue(Ticks now, kelp_completion* out, std::uint32_t max) noexcept {
  std::uint32_t count = 0;
  for (ClientRing* ring : rings_) {
    if (count == max || ring->earliest_deadline() > now) continue;
    count += ring->reap_overdue(now, out + count, max - count);
  }
  return count;
}

/// Whether a worker waits for the very CPU this thread would spin on.
bool Channel::beside_worker() const noexcept {
  const auto here = static_cast<std::uint32_t>(::sched_getcpu());
  return std::any_of(rings_.begin(), rings_.end(),
                     [here](const ClientRing* ring) { return ring->worker_cpu() == here; });
}

Ticks Channel::earliest_deadline() const noexcept {
  Ticks earliest = UINT64_MAX;
  for (const ClientRing* ring : rings_) earliest = std::min(earliest, ring->earliest_deadline());
  return earliest;
}

bool Channel::daemon_alive(Ticks now) noexcept {
  if (connection_.disconnected()) return false;
  std::uint64_t beats = 0;
  for (const ClientRing* ring : rings_) beats += ring->heartbeat();
  if (beats != heartbeat_seen_ || heartbeat_checked_ == 0) {
    heartbeat_seen_ = beats;
    heartbeat_checked_ = now;
    return true;
  }
  if (now - heartbeat_checked_ < rate_.from_us(kHeartbeatDoubtMs * 1000)) return true;
  heartbeat_checked_ = now;
  return connection_.check_alive();
}

std::uint32_t Channel::wake_fds(int* fds, std::uint32_t max) const noexcept {
  std::uint32_t count = 0;
  const auto add = [&](int fd) {
    if (count < max) fds[count] = fd;
    ++count;
  };
  for (const ClientRing* ring : rings_) add(ring->client_wake_fd());
  add(connection_.attachment().socket.get());
  return count;
}

bool Channel::arm() noexcept {
  for (ClientRing* ring : rings_) ring->arm_sleep();
  return std::any_of(rings_.begin(), rings_.end(), [](const ClientRing* r) { return r->ready(); });
}

void Channel::disarm(bool woken) noexcept {
  for (ClientRing* ring : rings_) {
    if (woken) swallow_wakes(ring->client_wake_fd());
    ring->disarm_sleep();
  }
}

void Channel::sleep_until(Ticks end) noexcept {
  const bool ready = arm();
  const Ticks wake_at = std::min(end, earliest_deadline());
  const Ticks now = ticks_now();
  if (!ready && wake_at > now) {
    std::array<pollfd, kMaxRingsPerClient + 1> entries;
    std::size_t count = 0;
    for (const ClientRing* ring : rings_) entries[count++] = {ring->client_wake_fd(), POLLIN, 0};
    entries[count++] = {connection_.attachment().socket.get(), POLLIN | POLLRDHUP, 0};
    const std::uint64_t sleep_ns =
        std::min(rate_.to_ns(wake_at - now), kLongestSleepUs * std::uint64_t{1000});
    const timespec limit{static_cast<time_t>(sleep_ns / 1'000'000'000),
                         static_cast<long>(sleep_ns % 1'000'000'000)};
    const int events = ::ppoll(entries.data(), count, &limit, nullptr);
    if (events > 0 && entries[count - 1].revents != 0) connection_.check_alive();
    for (std::size_t i = 0; events > 0 && i + 1 < count; ++i) {
      if (entries[i].revents != 0) swallow_wakes(entries[i].fd);
    }
  }
  disarm(false);
}

std::uint32_t Channel::unanswered() const noexcept {
  std::uint32_t sum = 0;
  for (const ClientRing* ring : rings_) sum += ring->unanswered();
  return sum;
}

std::uint32_t Channel::capacity() const noexcept {
  return rings_.front()->capacity();
}

}  // namespace kelp
