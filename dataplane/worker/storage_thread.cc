#include "dataplane/worker/storage_thread.h"

#include <poll.h>
#include <pthread.h>
#include <sys/uio.h>

#include <cerrno>

namespace kelp {
namespace {

void read_on(Op& op) noexcept {
  NeedleRead& read = op.read;
  while (read.next() == NeedleRead::Next::kIo && !op.given_up.load(std::memory_order_relaxed)) {
    const Io& io = read.io();
    const ssize_t got = ::preadv(read.request().dat_fd, io.data(), io.parts_left(),
                                 static_cast<off_t>(io.offset_bytes));
    if (got < 0 && errno == EINTR) continue;
    read.io_done(got < 0 ? -errno : got);
  }
}

}  // namespace

StorageThread::StorageThread(Op* ops, std::size_t count, Waker& worker)
    : ops_(ops), wanted_(count), done_(count), worker_(worker), thread_([this] { run(); }) {
  ::pthread_setname_np(thread_.native_handle(), "kelp-storage");
}

StorageThread::~StorageThread() {
  stop_.store(true, std::memory_order_release);
  waker_.notify();
  thread_.join();
}

void StorageThread::submit(OpIndex index) noexcept {
  wanted_.try_push(OpIndex{index});
  waker_.notify();
}

void StorageThread::run() noexcept {
  while (true) {
    while (const std::optional<OpIndex> index = wanted_.try_pop()) {
      read_on(ops_[*index]);
      done_.try_push(OpIndex{*index});
      worker_.notify();
    }
    if (stop_.load(std::memory_order_acquire)) return;
    waker_.arm();
    if (wanted_.empty() && !stop_.load(std::memory_order_acquire)) {
      pollfd entry{waker_.fd(), POLLIN, 0};
      ::poll(&entry, 1, -1);
    }
    waker_.disarm();
  }
}

}  // namespace kelp
