// Whether a descriptor has something to be read, told by a look at memory: the kernel sets a flag
// in an io_uring of ours before the call that makes it readable returns. Belongs to one thread.
#pragma once

#include <memory>

#include "dataplane/transport/uring.h"

namespace kelp {

class Bell {
 public:
  /// On the thread that will use it. Null: this kernel has no io_uring, or it does not ring at
  /// once.
  static std::unique_ptr<Bell> on(int fd);

  /// Also where it could not be heard from now on.
  bool has_rung() const noexcept { return uring_->has_work(); }
  /// Hears what comes from now on. Before the descriptor is read dry.
  void hush() noexcept;

 private:
  Bell(std::unique_ptr<Uring> uring, int fd) noexcept;

  std::unique_ptr<Uring> uring_;
  const int fd_;
};

}  // namespace kelp
