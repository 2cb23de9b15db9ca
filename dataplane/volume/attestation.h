// Whether a volume server vouches for the files of a volume that is open here.
//
// The rule: watch first, then ask. The worker watches the open files (close_watch.h) and counts
// each close by a process that could write them. The control thread notes that count, asks the
// server, and writes it back if the server lists the volume. The volume is attested while both
// numbers agree and the server has answered lately, so a close that comes at any moment after the
// watch began takes effect without a message: either the count had moved before the question, and
// the answer is about what came after it, or it moves afterwards and the answer is void.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "dataplane/volume/volume_key.h"
#include "shm_ring/ticks.h"

namespace kelp {

/// What all workers know of one volume server. The control thread writes; workers read, and count
/// their wishes.
struct ServerPulse {
  /// Its last answer is good until then. 0: it has not answered yet.
  std::atomic<Ticks> trusted_until{0};
  /// It answers 401 to who brings no token.
  std::atomic<bool> wants_token{false};
  /// Raised when a volume could be attested again: a reason to ask before the next round.
  std::atomic<std::uint64_t> wishes{0};
};

/// What a server's list has to say of a volume for it to be the one that is open here.
struct AttestedFacts {
  VolumeKey key;
  std::string collection;
  std::uint32_t directory_rank = 0;  ///< which of the server's directories, from 0
  std::uint16_t revision = 0;        ///< of the open .dat's super block
  std::uint8_t version = 0;          ///< of its needles
};

class Attestation {
 public:
  Attestation(AttestedFacts facts, std::shared_ptr<ServerPulse> pulse)
      : facts_(std::move(facts)), pulse_(std::move(pulse)) {}

  const AttestedFacts& facts() const noexcept { return facts_; }
  const ServerPulse& pulse() const noexcept { return *pulse_; }

  // The worker that owns the volume.

  /// Both files are watched from here on.
  void watched() noexcept { count_close(); }
  /// They cannot be watched: never attested.
  void unwatchable() noexcept { unwatchable_.store(true, std::memory_order_relaxed); }
  /// A process that may have been the server closed one of them.
  void closed() noexcept {
    if (closes_.load(std::memory_order_relaxed) != 0) count_close();
  }
  /// May be served. Call after CloseWatch::drain(); `now` from ticks_now().
  bool holds(Ticks now) const noexcept {
    // acquire pairs with attest(): who sees the count also sees what the answer said besides, such
    // as that tokens are wanted.
    return attested_.load(std::memory_order_acquire) == closes_.load(std::memory_order_relaxed) &&
           now < pulse_->trusted_until.load(std::memory_order_acquire);
  }

  // The control thread.

  /// Before asking; 0: not watched yet, so there is nothing to ask.
  std::uint64_t ticket() const noexcept { return closes_.load(std::memory_order_acquire); }
  /// The server, asked after ticket(), lists the volume as it is here.
  void attest(std::uint64_t ticket) noexcept { attested_.store(ticket, std::memory_order_release); }
  /// It does not.
  void withdraw() noexcept { attested_.store(kNever, std::memory_order_release); }

  // Anyone, for people to look at.
  bool was_attested() const noexcept { return attested_.load(std::memory_order_relaxed) != kNever; }
  bool is_unwatchable() const noexcept { return unwatchable_.load(std::memory_order_relaxed); }

 private:
  static constexpr std::uint64_t kNever = UINT64_MAX;

  void count_close() noexcept {
    // Only the worker writes it; release pairs with ticket(): the watch was there before.
    closes_.store(closes_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
    pulse_->wishes.fetch_add(1, std::memory_order_release);
  }

  const AttestedFacts facts_;
  const std::shared_ptr<ServerPulse> pulse_;
  std::atomic<std::uint64_t> closes_{0};  // 0: not watched; 1: watched, none yet
  std::atomic<std::uint64_t> attested_{kNever};
  std::atomic<bool> unwatchable_{false};
};

}  // namespace kelp
