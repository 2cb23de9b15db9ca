#include "dataplane/volume/close_watch.h"

#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string>

namespace kelp {
namespace {

/// Whether a volume server opens this file for writing: it looks at this bit, and not at who it is.
/// Source: SeaweedFS weed/util/file_util.go, CheckFile.
bool server_can_write(int fd) {
  struct stat st {};
  return ::fstat(fd, &st) == 0 && (st.st_mode & S_IWUSR) != 0;
}

}  // namespace

CloseWatch::CloseWatch() : inotify_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {}

bool CloseWatch::add_file(int fd, std::uint32_t events, Attestation* attestation) {
  // By descriptor, not by path: the watch is on the very file that is read.
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const int watch = ::inotify_add_watch(inotify_.get(), path.c_str(), events | IN_MASK_ADD);
  if (watch < 0) return false;
  watched_[watch].push_back(attestation);
  watches_[attestation].push_back(watch);
  return true;
}

void CloseWatch::add(const Volume& volume) {
  Attestation* attestation = volume.attestation();
  const std::uint32_t dat_events =
      IN_CLOSE_WRITE | (server_can_write(volume.dat_fd()) ? 0u : std::uint32_t{IN_CLOSE_NOWRITE});
  const bool both = add_file(volume.dat_fd(), dat_events, attestation) &&
                    add_file(volume.idx_fd(), IN_CLOSE_WRITE, attestation);
  if (both) {
    attestation->watched();
  } else {
    attestation->unwatchable();
  }
}

void CloseWatch::remove(const Volume& volume) noexcept {
  const Attestation* attestation = volume.attestation();
  const auto watches = watches_.find(attestation);
  if (watches == watches_.end()) return;
  for (const int watch : watches->second) {
    const auto concerned = watched_.find(watch);
    std::erase(concerned->second, attestation);
    if (!concerned->second.empty()) continue;
    watched_.erase(concerned);
    ::inotify_rm_watch(inotify_.get(), watch);
  }
  watches_.erase(watches);
}

std::uint32_t CloseWatch::tell(int watch) noexcept {
  const auto concerned = watched_.find(watch);
  // Removed meanwhile; its last events were still in the queue.
  if (concerned == watched_.end()) return 0;
  for (Attestation* attestation : concerned->second) attestation->closed();
  return static_cast<std::uint32_t>(concerned->second.size());
}

std::uint32_t CloseWatch::drain() noexcept {
  std::uint32_t count = 0;
  alignas(inotify_event) std::array<char, 4096> buffer;
  ssize_t got;
  while ((got = ::read(inotify_.get(), buffer.data(), buffer.size())) > 0) {
    for (ssize_t at = 0; at < got;) {
      inotify_event event;
      std::memcpy(&event, buffer.data() + at, sizeof event);
      at += static_cast<ssize_t>(sizeof event + event.len);
      if ((event.mask & IN_Q_OVERFLOW) == 0) {
        // Whatever it says: a file that went, or was unmounted, is not the server's any more.
        count += tell(event.wd);
        continue;
      }
      for (const auto& [attestation, watches] : watches_) count += tell(watches.front());
    }
  }
  return count;
}

}  // namespace kelp
