#include "dataplane/transport/uring.h"

#include <poll.h>
#include <sys/eventfd.h>

namespace kelp {

Result<std::unique_ptr<Uring>> Uring::create(unsigned entries) {
  std::unique_ptr<Uring> uring(new Uring());
  io_uring_params params{};
  params.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  const int error = ::io_uring_queue_init_params(entries, &uring->ring_, &params);
  if (error < 0) {
    return system_error(
        "cannot make an io_uring (Linux 6.1 or newer, kernel.io_uring_disabled = 0, and in a "
        "container a seccomp profile that lets it)",
        -error);
  }
  uring->made_ = true;
  uring->event_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!uring->event_) return system_error("cannot make an eventfd");
  const int refused = ::io_uring_register_eventfd(&uring->ring_, uring->event_.get());
  if (refused < 0) return system_error("cannot be told of completions", -refused);
  uring->arm(false);
  return uring;
}

Uring::~Uring() {
  if (made_) ::io_uring_queue_exit(&ring_);
}

/// Its queue may be full of what was not handed over yet.
io_uring_sqe* Uring::next_entry() noexcept {
  io_uring_sqe* entry = ::io_uring_get_sqe(&ring_);
  while (entry == nullptr) {
    ++enters_;
    ::io_uring_submit(&ring_);
    entry = ::io_uring_get_sqe(&ring_);
  }
  return entry;
}

void Uring::watch(int fd, std::uint64_t user) noexcept {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_poll_multishot(entry, fd, POLLIN | POLLRDHUP);
  entry->user_data = user;
}

void Uring::cancel(std::uint64_t user) noexcept {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_cancel64(entry, user, 0);
  entry->user_data = 0;
}

void Uring::wait_writable(int fd, std::uint64_t user) noexcept {
  io_uring_sqe* const entry = next_entry();
  ::io_uring_prep_poll_add(entry, fd, POLLOUT);
  entry->user_data = user;
}

bool Uring::has_work() const noexcept {
  return ::io_uring_sq_ready(&ring_) != 0 || kernel_has_more() || ::io_uring_cq_ready(&ring_) != 0;
}

/// What it has comes by the next system call: completions to be made, or that the ring had no place
/// for.
bool Uring::kernel_has_more() const noexcept {
  // Orders nothing: what it stands for is taken by a system call.
  return (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) &
          (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

unsigned Uring::poll(std::span<Completion> ended) noexcept {
  const bool queued = ::io_uring_sq_ready(&ring_) != 0;
  if (queued || kernel_has_more()) {
    ++enters_;
    ::io_uring_submit_and_get_events(&ring_);
  }
  unsigned count = 0;
  unsigned head = 0;
  io_uring_cqe* entry = nullptr;
  io_uring_for_each_cqe(&ring_, head, entry) {
    if (count == ended.size()) break;
    ended[count++] = {entry->user_data, entry->res, (entry->flags & IORING_CQE_F_MORE) == 0};
  }
  ::io_uring_cq_advance(&ring_, count);
  return count;
}

}  // namespace kelp
