// Wakes one thread of the daemon: an eventfd that is written only when that thread says it sleeps.
// notify(): any thread. The rest: the thread that sleeps.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

#include "shm_ring/unique_fd.h"
#include "shm_ring/wake_flag.h"

namespace kelp {

class Waker {
 public:
  Waker() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  /// After publishing something the sleeper should see.
  void notify() noexcept {
    announce_batch();
    if (!take_wake_flag(&sleeps_)) return;
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof one);
  }

  /// Before the last look; then sleep on fd() if there was nothing.
  void arm() noexcept { arm_wake_flag(&sleeps_); }

  /// Awake again.
  void disarm() noexcept {
    disarm_wake_flag(&sleeps_);
    std::uint64_t count;
    [[maybe_unused]] const ssize_t got = ::read(fd_.get(), &count, sizeof count);
  }

  int fd() const noexcept { return fd_.get(); }

 private:
  UniqueFd fd_;
  std::uint32_t sleeps_ = 0;
};

}  // namespace kelp
