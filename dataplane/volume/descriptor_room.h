// Who may take the last file descriptors of the process. Any thread.
//
// A directory of very many volumes must not lock all clients out, nor clients whoever asks /health:
// volumes leave a quarter of RLIMIT_NOFILE to clients, clients a sixteenth to everybody else.
#pragma once

#include <sys/resource.h>

namespace kelp {

inline constexpr rlim_t kVolumesLeaveOneIn = 4;
inline constexpr rlim_t kClientsLeaveOneIn = 16;

/// Whether `fd`, just opened, leaves one in `share` descriptors free. The kernel gives out the
/// lowest free number, so a high one means that few are left.
inline bool leaves_descriptors(int fd, rlim_t share) noexcept {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return true;
  return static_cast<rlim_t>(fd) < limit.rlim_cur - limit.rlim_cur / share;
}

}  // namespace kelp
