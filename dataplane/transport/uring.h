// One io_uring of one thread: what is queued goes to the kernel, and what has ended comes back,
// with one system call for both, and with none while there is neither.
//
// Belongs to the thread that made it (IORING_SETUP_SINGLE_ISSUER); completions are made ready by
// that thread alone (DEFER_TASKRUN), so nothing interrupts it.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>
#include <span>

#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class Uring {
 public:
  /// On the thread that will use it.
  static Result<std::unique_ptr<Uring>> create(unsigned entries);
  ~Uring();
  Uring(const Uring&) = delete;
  Uring& operator=(const Uring&) = delete;

  struct Completion {
    std::uint64_t user = 0;   ///< as it was queued
    std::int32_t result = 0;  ///< events, or -errno
    bool last = true;         ///< of what was queued; else more may come of it
  };

  // Queue something; `user` comes back with its completions.
  /// Completes each time something comes to be read from `fd`, again and again.
  void watch(int fd, std::uint64_t user) noexcept;
  /// Ends what was queued as `user`, which completes once more. Itself it completes as user 0.
  void cancel(std::uint64_t user) noexcept;
  /// Completes once `fd` takes what is written to it.
  void wait_writable(int fd, std::uint64_t user) noexcept;

  /// Hands over what is queued and takes up to `ended.size()` of what has ended. Never waits.
  unsigned poll(std::span<Completion> ended) noexcept;
  /// Whether poll() would do anything: a look at memory. For after arming fd(), too.
  bool has_work() const noexcept;
  /// For the caller's epoll, edge-triggered: an eventfd that is never read. (The ring's own
  /// descriptor does not wake anybody as long as completions wait for this thread.)
  int fd() const noexcept { return event_.get(); }
  /// While armed, what ends makes an edge at fd(). Arm, fence, look at has_work() or poll(), sleep.
  void arm(bool armed) noexcept { ::io_uring_cq_eventfd_toggle(&ring_, armed); }
  /// System calls made so far.
  std::uint64_t enters() const noexcept { return enters_; }

 private:
  Uring() = default;
  io_uring_sqe* next_entry() noexcept;
  bool kernel_has_more() const noexcept;

  UniqueFd event_;
  mutable io_uring ring_{};
  bool made_ = false;
  std::uint64_t enters_ = 0;
};

}  // namespace kelp
