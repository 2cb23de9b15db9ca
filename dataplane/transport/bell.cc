#include "dataplane/transport/bell.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <array>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

constexpr unsigned kEntries = 8;

}  // namespace

Bell::Bell(std::unique_ptr<Uring> uring, int fd) noexcept : uring_(std::move(uring)), fd_(fd) {
  uring_->watch(fd_, 1);
  uring_->poll({});  // and has rung if there is something already
}

std::unique_ptr<Bell> Bell::on(int fd) {
  const auto make = [](int of) -> std::unique_ptr<Bell> {
    auto uring = Uring::create(kEntries);
    if (!uring) return nullptr;
    return std::unique_ptr<Bell>(new Bell(std::move(*uring), of));
  };
  // Whether it rings, once: what is said of kernels is not enough where a close must be seen.
  const UniqueFd test(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  const std::unique_ptr<Bell> tested = test ? make(test.get()) : nullptr;
  const std::uint64_t one = 1;
  if (tested == nullptr || tested->has_rung() ||
      ::write(test.get(), &one, sizeof one) != sizeof one || !tested->has_rung()) {
    return nullptr;
  }
  return make(fd);
}

void Bell::hush() noexcept {
  std::array<Uring::Completion, kEntries> rings;
  const unsigned count = uring_->poll(rings);
  for (unsigned i = 0; i < count; ++i) {
    if (!rings[i].last) continue;
    uring_->watch(fd_, 1);
    uring_->poll({});
  }
}

}  // namespace kelp
