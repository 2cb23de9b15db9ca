#include "shm_ring/ticks.h"

namespace kelp {

TickRate::TickRate() {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const Ticks first = ticks_now();
  Clock::time_point end = start;
  while (end - start < std::chrono::milliseconds(2)) end = Clock::now();
  const Ticks last = ticks_now();
  const double elapsed_us = std::chrono::duration<double, std::micro>(end - start).count();
  const double per_us = static_cast<double>(last - first) / elapsed_us;
  constexpr double kOneQ32 = 4294967296.0;
  per_us_q32_ = static_cast<std::uint64_t>(per_us * kOneQ32);
  ns_per_tick_q32_ = static_cast<std::uint64_t>(1000.0 / per_us * kOneQ32);
}

const TickRate& TickRate::instance() {
  static const TickRate rate;
  return rate;
}

}  // namespace kelp
