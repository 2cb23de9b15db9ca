// The directory of a daemon's sockets, held by one daemon at a time.
// Made by the control thread at start and kept until exit.
#pragma once

#include <string>

#include "control/file_owner.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class RunDir {
 public:
  /// Makes `path` (0755) if its parent exists, and locks `path`/kelpd.lock with our pid inside.
  /// The kernel drops the lock when the process ends, however it ends.
  /// Errors: not a directory, neither ours nor root's nor `owner`'s, writable by everyone, not
  /// permitted, held by another kelpd (its pid).
  /// A directory that had to be made, and the lock file, are given to `owner`, so that a daemon
  /// that becomes somebody else may take its sockets away again.
  static Result<RunDir> claim(const std::string& path, FileOwner owner = {});

  const std::string& path() const noexcept { return path_; }
  std::string attach_socket() const { return path_ + "/attach.sock"; }    ///< SOCK_SEQPACKET
  std::string control_socket() const { return path_ + "/control.sock"; }  ///< SOCK_STREAM, HTTP
  std::string http_socket() const { return path_ + "/http.sock"; }        ///< and the HTTP read API

 private:
  RunDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}

  std::string path_;
  UniqueFd lock_;
};

}  // namespace kelp
