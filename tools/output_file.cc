#include "tools/output_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <utility>

namespace kelp {
namespace {

tl::unexpected<Failure> cannot_write(const std::string& name, int os_error) {
  // The reader of a pipe has seen enough (`| head`): it needs no explanation.
  if (os_error == EPIPE) return fail(ExitCode::kCannotWrite, "");
  return fail(ExitCode::kCannotWrite, "cannot write " + name + ": " + std::strerror(os_error));
}

int write_all(int fd, const char* bytes, std::size_t count) {
  while (count != 0) {
    const ssize_t written = ::write(fd, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return errno;
    bytes += written;
    count -= static_cast<std::size_t>(written);
  }
  return 0;
}

/// Where the bytes of `path` really are, so that a link is followed and not replaced.
std::string follow_links(const std::string& path) {
  const std::unique_ptr<char, decltype(&::free)> real(::realpath(path.c_str(), nullptr), &::free);
  return real ? real.get() : path;
}

std::string directory_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

mode_t mode_for(const std::string& path) {
  struct stat existing {};
  if (::stat(path.c_str(), &existing) == 0) return existing.st_mode & 0777;
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

}  // namespace

Outcome<OutputFile> OutputFile::open(const std::string& path) {
  if (path.empty() || path == "-") return OutputFile(STDOUT_FILENO, "the standard output");
  struct stat existing {};
  const bool exists = ::stat(path.c_str(), &existing) == 0;
  if (exists && S_ISDIR(existing.st_mode)) return cannot_write(path, EISDIR);
  if (!exists || S_ISREG(existing.st_mode)) return beside(follow_links(path));
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return cannot_write(path, errno);
  return OutputFile(fd, path);
}

Outcome<OutputFile> OutputFile::beside(const std::string& final_path) {
  const std::string directory = directory_of(final_path);
  const mode_t mode = mode_for(final_path);
  // A file without a name vanishes with its process, however that ends.
  int fd = ::open(directory.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, mode);
  std::string temporary;
  if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
    temporary = final_path + ".kelpctl-XXXXXX";
    fd = ::mkostemp(temporary.data(), O_CLOEXEC);
  }
  if (fd < 0) return cannot_write(final_path, errno);
  OutputFile file(fd, final_path);
  file.final_path_ = final_path;
  file.temporary_path_ = std::move(temporary);
  if (::fchmod(fd, mode) != 0) return cannot_write(final_path, errno);
  return file;
}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      shown_name_(std::move(other.shown_name_)),
      final_path_(std::move(other.final_path_)),
      temporary_path_(std::exchange(other.temporary_path_, {})) {}

OutputFile::~OutputFile() {
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
  if (fd_ > STDERR_FILENO) ::close(fd_);
}

tl::unexpected<Failure> OutputFile::failed(int os_error) const {
  return cannot_write(shown_name_, os_error);
}

Outcome<void> OutputFile::write(const void* bytes, std::size_t count) {
  const int os_error = write_all(fd_, static_cast<const char*>(bytes), count);
  if (os_error != 0) return failed(os_error);
  return {};
}

/// Gives a nameless file a temporary name: linking cannot replace an existing file, renaming can.
Outcome<void> OutputFile::name_it() {
  if (!temporary_path_.empty()) return {};
  const std::string self = "/proc/self/fd/" + std::to_string(fd_);
  const std::string name = final_path_ + ".kelpctl-" + std::to_string(::getpid());
  ::unlink(name.c_str());  // left by a killed process that had our pid
  if (::linkat(AT_FDCWD, self.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return failed(errno);
  }
  temporary_path_ = name;
  return {};
}

Outcome<void> OutputFile::commit() {
  if (!final_path_.empty()) {
    if (Outcome<void> named = name_it(); !named) return named;
  }
  // Network file systems report a full disk only here.
  if (fd_ > STDERR_FILENO && ::close(std::exchange(fd_, -1)) != 0) return failed(errno);
  if (final_path_.empty()) return {};
  if (::rename(temporary_path_.c_str(), final_path_.c_str()) != 0) return failed(errno);
  temporary_path_.clear();
  return {};
}

Outcome<void> write_stdout(const std::string& text) {
  const int os_error = write_all(STDOUT_FILENO, text.data(), text.size());
  if (os_error != 0) return cannot_write("the standard output", os_error);
  return {};
}

}  // namespace kelp
