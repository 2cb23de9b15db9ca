// Runs kelpctl as the process it is: forked, with its stdout and stderr in files.
#pragma once

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <iostream>
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
  bool close_out = false;
};

inline Ran run(std::vector<std::string> words, const Streams& streams = {}) {
  const TempDir dir;
  const std::string out = streams.out_path.empty() ? dir / "out" : streams.out_path;
  // What the test framework has buffered must not be written twice.
  std::cout.flush();
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    words.insert(words.begin(), "kelpctl");
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    ::dup2(::open(out.c_str(), O_WRONLY | O_CREAT, 0600), STDOUT_FILENO);
    ::dup2(::open((dir / "err").c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    if (streams.close_out) ::close(STDOUT_FILENO);
    const int code = run_kelpctl(static_cast<int>(words.size()), argv.data());
    std::fflush(nullptr);
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  return {code, streams.out_path.empty() ? read_text(out) : "", read_text(dir / "err")};
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace kelp::test
