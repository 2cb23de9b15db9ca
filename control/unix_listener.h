// A listening Unix socket at a path, and the file it leaves there.
// Made and destroyed by the control thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "control/file_owner.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

enum class UnixSocketKind : std::uint8_t { kStream, kSeqPacket };

struct UnixListenerOptions {
  UnixSocketKind kind = UnixSocketKind::kStream;
  std::uint32_t mode = 0660;  ///< permission bits of the socket file
  std::string group = {};     ///< its group; empty: left as it is
  FileOwner owner = {};       ///< and its owner; `group` goes before owner.gid
  int backlog = 128;          ///< connections waiting for accept()
};

class UnixListener {
 public:
  /// Listens at `path`. A socket file nobody listens on any more is replaced; one that answers, and
  /// any other file, is not. Nobody can connect before mode and group are set.
  /// Errors: path too long, another process listens there, no such group, not permitted.
  static Result<UnixListener> create(const std::string& path,
                                     const UnixListenerOptions& options = {});

  UnixListener(UnixListener&& other) noexcept;
  UnixListener& operator=(UnixListener&&) = delete;
  /// Stops listening and removes the file, if it is still this socket's.
  ~UnixListener();

  /// Non-blocking, close-on-exec; the listener keeps it.
  int fd() const noexcept { return fd_.get(); }
  const std::string& path() const noexcept { return path_; }

 private:
  UnixListener(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  Result<void> remember_file();

  UniqueFd fd_;
  std::string path_;  ///< empty: there is no file to remove
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace kelp
