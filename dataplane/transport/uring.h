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
    std::int32_t result = 0;  ///< bytes, or -errno
  };

  // Queue something; `user` comes back with its end. Memory stays until then.
  void recv(int fd, std::span<std::byte> to, int flags, std::uint64_t user) noexcept;
  void send(int fd, const msghdr* message, std::uint64_t user) noexcept;

  /// Hands over what is queued and takes up to `ended.size()` of what has ended. Never waits.
  unsigned poll(std::span<Completion> ended) noexcept;
  /// Whether poll() would do anything. For after arming fd().
  bool has_work() const noexcept;
  /// Readable while something has ended that was not taken; for the caller's epoll.
  int fd() const noexcept { return ring_.ring_fd; }
  /// System calls made so far.
  std::uint64_t enters() const noexcept { return enters_; }

 private:
  Uring() = default;
  io_uring_sqe* next_entry() noexcept;

  mutable io_uring ring_{};
  bool made_ = false;
  std::uint64_t enters_ = 0;
};

}  // namespace kelp
