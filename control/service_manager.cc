#include "control/service_manager.h"

#include <time.h>

#include <cstdint>

#ifdef KELP_WITH_SYSTEMD
#include <systemd/sd-daemon.h>
#endif

namespace kelp {
namespace {

void notify([[maybe_unused]] const std::string& state) {
#ifdef KELP_WITH_SYSTEMD
  // A manager that does not listen is its own affair.
  (void)::sd_notify(0, state.c_str());
#endif
}

}  // namespace

ServiceManager::ServiceManager() {
#ifdef KELP_WITH_SYSTEMD
  std::uint64_t limit_us = 0;
  if (::sd_watchdog_enabled(0, &limit_us) > 0) watchdog_ = std::chrono::microseconds(limit_us);
#endif
}

void ServiceManager::ready() {
  notify("READY=1");
}

void ServiceManager::reloading() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::int64_t now_us = std::int64_t{now.tv_sec} * 1'000'000 + now.tv_nsec / 1000;
  notify("RELOADING=1\nMONOTONIC_USEC=" + std::to_string(now_us));
}

void ServiceManager::stopping() {
  notify("STOPPING=1\nSTATUS=draining");
}

void ServiceManager::status(const std::string& sentence) {
  if (sentence == status_) return;
  status_ = sentence;
  notify("STATUS=" + sentence);
}

void ServiceManager::alive() {
  notify("WATCHDOG=1");
}

}  // namespace kelp
