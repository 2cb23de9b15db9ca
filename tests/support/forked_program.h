// A program of its own, for tests of what fork() and exit() do to others. Forked at once, while the
// test has one thread, and told to go when everything else stands.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <stdexcept>
#include <string>

#include "shm_ring/unique_fd.h"

namespace kelp::test {

/// Numbers its checks from 1; the first that fails becomes the exit code.
class Steps {
 public:
  void check(bool holds) {
    ++done_;
    if (!holds && failed_ == 0) failed_ = done_;
  }
  int failed() const { return failed_; }

 private:
  int done_ = 0;
  int failed_ = 0;
};

class ForkedProgram {
 public:
  /// `body` gets what go() is given, and answers the exit code.
  explicit ForkedProgram(const std::function<int(const std::string&)>& body) {
    int fds[2];
    if (::pipe(fds) != 0) throw std::runtime_error("pipe");
    go_.reset(fds[1]);
    const UniqueFd start(fds[0]);
    pid_ = ::fork();
    if (pid_ != 0) return;
    go_.reset();
    std::string text(4096, '\0');
    const ssize_t got = ::read(start.get(), text.data(), text.size());
    if (got <= 0) ::_exit(250);
    text.resize(static_cast<std::size_t>(got));
    int code = 251;
    try {
      code = body(text);
    } catch (...) {
    }
    ::_exit(code);
  }
  ~ForkedProgram() {
    go_.reset();
    if (pid_ > 0) wait();
  }
  void go(const std::string& text) {
    if (::write(go_.get(), text.data(), text.size()) < 0) throw std::runtime_error("pipe");
  }
  /// The exit code, or 1000 + the signal that ended it.
  int wait() {
    int status = 0;
    while (::waitpid(pid_, &status, 0) < 0) {
    }
    pid_ = -1;
    return exit_code(status);
  }
  pid_t pid() const { return pid_; }

  static int exit_code(int status) {
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  }

 private:
  UniqueFd go_;
  pid_t pid_ = -1;
};

}  // namespace kelp::test
