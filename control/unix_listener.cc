#include "control/unix_listener.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <vector>

namespace kelp {
namespace {

int socket_type(UnixSocketKind kind) {
  return (kind == UnixSocketKind::kStream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC |
         SOCK_NONBLOCK;
}

Result<sockaddr_un> make_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  constexpr std::size_t kLongest = sizeof address.sun_path - 1;
  if (path.empty()) return plain_error("cannot listen on a socket without a path");
  if (path.size() > kLongest) {
    return plain_error("cannot listen on " + path + ": a socket path holds at most " +
                       std::to_string(kLongest) + " bytes and this one has " +
                       std::to_string(path.size()) + "; choose a shorter --run-dir");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

const sockaddr* generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

Result<gid_t> group_id(const std::string& name) {
  std::vector<char> buffer(16384);
  group entry{};
  group* found = nullptr;
  const int failed = ::getgrnam_r(name.c_str(), &entry, buffer.data(), buffer.size(), &found);
  if (found != nullptr) return found->gr_gid;
  if (failed != 0) return system_error("cannot look up the group " + name, failed);
  return plain_error("there is no group " + name +
                     " on this host: create it, or change client.socket_group");
}

enum class Occupant { kStale, kAlive, kUnknown };

/// Who listens on the socket file. Only a refused connection proves that nobody does.
Occupant ask_occupant(const sockaddr_un& address, UnixSocketKind kind) {
  const UniqueFd probe(::socket(AF_UNIX, socket_type(kind), 0));
  if (!probe) return Occupant::kUnknown;
  if (::connect(probe.get(), generic(address), sizeof address) == 0) return Occupant::kAlive;
  if (errno == ECONNREFUSED) return Occupant::kStale;
  // EAGAIN: its backlog is full. EPROTOTYPE: it listens with the other type.
  return errno == EAGAIN || errno == EPROTOTYPE ? Occupant::kAlive : Occupant::kUnknown;
}

/// Makes the path free where a dead daemon left its socket there.
Result<void> remove_stale(const sockaddr_un& address, UnixSocketKind kind,
                          const std::string& path) {
  const std::string doing = "cannot listen on " + path;
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return {};
    return system_error(doing);
  }
  if (!S_ISSOCK(found.st_mode)) {
    return plain_error(doing + ": a file that is not a socket is in the way; remove it");
  }
  switch (ask_occupant(address, kind)) {
    case Occupant::kAlive:
      return plain_error(doing +
                         ": another process answers there; stop it or choose another "
                         "--run-dir");
    case Occupant::kUnknown:
      return system_error(doing + ": cannot tell whether another process uses it");
    case Occupant::kStale:
      break;
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return system_error("cannot remove the stale socket " + path);
  }
  return {};
}

Result<void> bind_to(int fd, const sockaddr_un& address, UnixSocketKind kind,
                     const std::string& path) {
  if (::bind(fd, generic(address), sizeof address) == 0) return {};
  if (errno != EADDRINUSE) return system_error("cannot listen on " + path);
  if (Result<void> free = remove_stale(address, kind, path); !free) return free;
  if (::bind(fd, generic(address), sizeof address) == 0) return {};
  return system_error("cannot listen on " + path);
}

Result<void> set_permissions(const std::string& path, const UnixListenerOptions& options) {
  FileOwner owner = options.owner;
  if (!options.group.empty()) {
    const Result<gid_t> group = group_id(options.group);
    if (!group) return tl::unexpected(group.error());
    owner.gid = *group;
  }
  if (::lchown(path.c_str(), owner.uid, owner.gid) != 0) {
    return system_error("cannot set the owner of " + path +
                        (options.group.empty() ? "" : " to the group " + options.group));
  }
  // The directory may belong to somebody who would like root to open another file to them.
  if (::fchmodat(AT_FDCWD, path.c_str(), options.mode, AT_SYMLINK_NOFOLLOW) != 0) {
    return system_error("cannot set the permissions of " + path);
  }
  return {};
}

}  // namespace

Result<UnixListener> UnixListener::create(const std::string& path,
                                          const UnixListenerOptions& options) {
  const Result<sockaddr_un> address = make_address(path);
  if (!address) return tl::unexpected(address.error());
  UniqueFd fd(::socket(AF_UNIX, socket_type(options.kind), 0));
  if (!fd) return system_error("cannot make a socket for " + path);
  // A failure here is harmless: until listen(), every connection is refused anyway.
  (void)::fchmod(fd.get(), 0600);
  if (Result<void> bound = bind_to(fd.get(), *address, options.kind, path); !bound) {
    return tl::unexpected(bound.error());
  }
  UnixListener listener(std::move(fd), path);
  Result<void> ready = listener.remember_file();
  if (ready) ready = set_permissions(path, options);
  if (!ready) return tl::unexpected(ready.error());
  if (::listen(listener.fd(), options.backlog) != 0) {
    return system_error("cannot listen on " + path);
  }
  return listener;
}

Result<void> UnixListener::remember_file() {
  struct stat made {};
  if (::lstat(path_.c_str(), &made) != 0) return system_error("cannot find the socket " + path_);
  device_ = made.st_dev;
  inode_ = made.st_ino;
  return {};
}

UnixListener::UnixListener(UnixListener&& other) noexcept
    : fd_(std::move(other.fd_)),
      path_(std::exchange(other.path_, {})),
      device_(other.device_),
      inode_(other.inode_) {}

UnixListener::~UnixListener() {
  if (path_.empty()) return;
  struct stat found {};
  if (::lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) ::unlink(path_.c_str());
}

}  // namespace kelp
