// Runs kelpctl as the process it is, with its stdout and stderr in files: run() forked and on the
// stand-in of libkelp, in a test without threads; run_program() the executable itself.
#pragma once

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

#include "control/temp_dir.h"
#include "tools/kelpctl.h"

namespace kelp::test {

struct Ran {
  int code;
  std::string out;
  std::string err;
};

struct Streams {
  std::string out_path = {};  ///< empty: a file whose content becomes Ran::out
  std::string err_path = {};  ///< the same of Ran::err; run_program() only
  bool close_out = false;     ///< run() only
};

/// argv of a program: pointers into `words`, which outlive it, and the null at its end.
inline std::vector<char*> to_argv(std::vector<std::string>& words) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  return argv;
}

/// Waits for `child`; its exit code, or 1000 and the signal that ended it.
inline int wait_for(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/// Starts the executable with its stdout and stderr in these files, and does not wait for it.
/// Spawned, not forked: a fork of a process with threads may inherit a lock nobody will release.
inline pid_t start_program(std::vector<std::string> words, const std::string& out,
                           const std::string& err) {
  words.insert(words.begin(), KELPCTL_PROGRAM);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, out.c_str(), O_WRONLY | O_CREAT,
                                     0600);
  ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, err.c_str(), O_WRONLY | O_CREAT,
                                     0600);
  pid_t child = -1;
  const int error =
      ::posix_spawn(&child, KELPCTL_PROGRAM, &actions, nullptr, to_argv(words).data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot run " KELPCTL_PROGRAM);
  return child;
}

inline Ran run_program(std::vector<std::string> words, const Streams& streams = {}) {
  const TempDir dir;
  const std::string out = streams.out_path.empty() ? dir / "out" : streams.out_path;
  const std::string err = streams.err_path.empty() ? dir / "err" : streams.err_path;
  const int code = wait_for(start_program(std::move(words), out, err));
  return {code, streams.out_path.empty() ? read_text(out) : "",
          streams.err_path.empty() ? read_text(err) : ""};
}

inline Ran run(std::vector<std::string> words, const Streams& streams = {}) {
  const TempDir dir;
  const std::string out = streams.out_path.empty() ? dir / "out" : streams.out_path;
  // What the test framework has buffered must not be written twice.
  std::cout.flush();
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    words.insert(words.begin(), "kelpctl");
    std::vector<char*> argv = to_argv(words);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    ::dup2(::open((dir / "err").c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    if (streams.close_out) ::close(STDOUT_FILENO);
    const int code = run_kelpctl(static_cast<int>(words.size()), argv.data());
    std::fflush(nullptr);
    ::_exit(code);
  }
  const int code = wait_for(child);
  return {code, streams.out_path.empty() ? read_text(out) : "", read_text(dir / "err")};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace kelp::test
