// The CPU's time-stamp counter as a clock: one instruction to read, no system call.
// Any thread. Needs an invariant counter, which every x86-64 and ARMv8 server of the last decade
// has.
#pragma once

#include <chrono>
#include <cstdint>

namespace kelp {

/// A point in time, in counter steps. Compare only values of one machine and boot.
using Ticks = std::uint64_t;

inline Ticks ticks_now() noexcept {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  std::uint64_t value;
  asm volatile("mrs %0, cntvct_el0" : "=r"(value));
  return value;
#else
#error "no time-stamp counter known for this architecture"
#endif
}

/// How fast the counter runs, measured once per process against CLOCK_MONOTONIC (about 2 ms, at the
/// first call; later calls are a load).
class TickRate {
 public:
  static const TickRate& instance();

  Ticks from_us(std::uint64_t microseconds) const noexcept {
    return scale(microseconds, per_us_q32_);
  }
  std::uint64_t to_ns(Ticks duration) const noexcept { return scale(duration, ns_per_tick_q32_); }

 private:
  TickRate();

  /// `value` times a factor with 32 fraction bits: one multiplication of integers.
  static std::uint64_t scale(std::uint64_t value, std::uint64_t factor_q32) noexcept {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::uint64_t>(static_cast<Wide>(value) * factor_q32 >> 32);
  }

  std::uint64_t per_us_q32_;
  std::uint64_t ns_per_tick_q32_;
};

/// One polite turn of a spinning loop.
inline void cpu_relax() noexcept {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace kelp
