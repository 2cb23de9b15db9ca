// Who must be woken: a word in shared memory that says "I sleep".
//
//   publisher: store entries -> announce()  -> wake_needed()? wake through a descriptor
//   sleeper:   arm()         -> look again  -> sleep
//
// Store-then-load on both sides: without a full barrier in the middle each could miss the other's
// store. Two seq_cst fences (F1, F2) exclude that. The thread sanitizer does not model fences; a
// seq_cst exchange on the flag orders the same there, at the price of a locked instruction.
#pragma once

#include <atomic>
#include <cstdint>

namespace kelp {

#if defined(__SANITIZE_THREAD__)
inline constexpr bool kFencesAreModelled = false;
#else
inline constexpr bool kFencesAreModelled = true;
#endif

/// Publisher: after the last entry of a batch, before wake_needed().
inline void announce_batch() noexcept {
  // F1 pairs with F2 in arm_wake_flag().
  if constexpr (kFencesAreModelled) std::atomic_thread_fence(std::memory_order_seq_cst);
}

/// Publisher: true for exactly one caller per arming; that one sends the wake-up.
inline bool take_wake_flag(std::uint32_t* flag) noexcept {
  if constexpr (kFencesAreModelled) {
    // relaxed: ordered by F1. The common case, nobody sleeps, costs one load.
    if (__atomic_load_n(flag, __ATOMIC_RELAXED) == 0) return false;
  }
  return __atomic_exchange_n(flag, 0U, __ATOMIC_SEQ_CST) != 0;
}

/// Sleeper: before it looks at its ring for the last time.
inline void arm_wake_flag(std::uint32_t* flag) noexcept {
  if constexpr (kFencesAreModelled) {
    __atomic_store_n(flag, 1U, __ATOMIC_RELAXED);
    std::atomic_thread_fence(std::memory_order_seq_cst);  // F2 pairs with F1 in announce_batch().
  } else {
    __atomic_exchange_n(flag, 1U, __ATOMIC_SEQ_CST);
  }
}

/// Sleeper: awake again, by whatever cause.
inline void disarm_wake_flag(std::uint32_t* flag) noexcept {
  __atomic_store_n(flag, 0U, __ATOMIC_RELAXED);  // relaxed: a needless wake-up is harmless
}

}  // namespace kelp
