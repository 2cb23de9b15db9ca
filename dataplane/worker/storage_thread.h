// Reads that would have waited for the disk, waited for where it hurts nobody.
//
// One thread per worker. It drives an op's NeedleRead with plain preadv() to its end, or until the
// op is given up, and hands it back. The worker pushes and pops; the queues hold every op there is,
// so neither is ever full.
#pragma once

#include <atomic>
#include <cstddef>
#include <thread>

#include "dataplane/worker/op.h"
#include "dataplane/worker/spsc_queue.h"
#include "dataplane/worker/waker.h"

namespace kelp {

class StorageThread {
 public:
  /// `ops` is the worker's slab of `count`; `worker` is told when one comes back.
  StorageThread(Op* ops, std::size_t count, Waker& worker);
  ~StorageThread();

  /// Worker: lends ops[index].read to the thread.
  void submit(OpIndex index) noexcept;
  /// Worker: an op whose read is done, needs a private read, or was given up with I/O to do.
  std::optional<OpIndex> take_done() noexcept { return done_.try_pop(); }

 private:
  void run() noexcept;

  Op* ops_;
  SpscQueue<OpIndex> wanted_;
  SpscQueue<OpIndex> done_;
  Waker waker_;
  Waker& worker_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace kelp
