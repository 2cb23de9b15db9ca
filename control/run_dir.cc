#include "control/run_dir.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace kelp {
namespace {

constexpr mode_t kMode = 0755;

Result<void> make_directory(const std::string& path, FileOwner owner) {
  if (::mkdir(path.c_str(), kMode) == 0) {
    // The umask of the caller does not decide who may reach the sockets: their own modes do.
    if (::chmod(path.c_str(), kMode) == 0 && ::lchown(path.c_str(), owner.uid, owner.gid) == 0) {
      return {};
    }
    return system_error("cannot set permissions and owner of the run directory " + path);
  }
  if (errno == EEXIST) return {};
  if (errno == ENOENT) {
    return system_error("cannot make the run directory " + path +
                        " (its parent must exist; choose another with --run-dir)");
  }
  return system_error("cannot make the run directory " + path + " (choose another with --run-dir)");
}

Result<void> judge_directory(const std::string& path, FileOwner owner) {
  struct stat found {};
  if (::stat(path.c_str(), &found) != 0)
    return system_error("cannot use the run directory " + path);
  if (!S_ISDIR(found.st_mode)) {
    return plain_error("cannot use the run directory " + path + ": it is not a directory");
  }
  // Who owns the directory can put a socket of their own in place of ours.
  if (found.st_uid != ::geteuid() && found.st_uid != 0 && found.st_uid != owner.uid) {
    return plain_error("cannot use the run directory " + path + ": it belongs to uid " +
                       std::to_string(found.st_uid) + "; chown it, or choose another --run-dir");
  }
  // Without the sticky bit anybody could put a socket of their own in place of ours.
  if ((found.st_mode & S_IWOTH) != 0 && (found.st_mode & S_ISVTX) == 0) {
    return plain_error("cannot use the run directory " + path +
                       ": every user may write there; chmod o-w it, or choose another --run-dir");
  }
  return {};
}

/// The pid in the lock file, or empty where there is none to read.
std::string read_pid(int fd) {
  char text[32];
  const ssize_t got = ::pread(fd, text, sizeof text, 0);
  std::string_view pid(text, got > 0 ? static_cast<std::size_t>(got) : 0);
  pid = pid.substr(0, pid.find_first_not_of("0123456789"));
  return std::string(pid);
}

Result<void> write_pid(int fd, const std::string& path) {
  const std::string pid = std::to_string(::getpid()) + "\n";
  if (::ftruncate(fd, 0) != 0 ||
      ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return system_error("cannot write the pid into " + path);
  }
  return {};
}

}  // namespace

Result<RunDir> RunDir::claim(const std::string& path, FileOwner owner) {
  Result<void> fit = make_directory(path, owner);
  if (fit) fit = judge_directory(path, owner);
  if (!fit) return tl::unexpected(fit.error());

  const std::string lock_path = path + "/kelpd.lock";
  UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644));
  if (!lock) return system_error("cannot open the lock file " + lock_path);
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return system_error("cannot lock " + lock_path);
    const std::string pid = read_pid(lock.get());
    return plain_error("another kelpd" + (pid.empty() ? "" : " (pid " + pid + ")") + " uses " +
                       path + ": stop it or choose another --run-dir");
  }
  if (::fchown(lock.get(), owner.uid, owner.gid) != 0) {
    return system_error("cannot set the owner of " + lock_path);
  }
  if (fit = write_pid(lock.get(), lock_path); !fit) return tl::unexpected(fit.error());
  return RunDir(path, std::move(lock));
}

}  // namespace kelp
