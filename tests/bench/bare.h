// What the bare yardsticks have in common: two pinned threads, so many seconds, and no excuses.
#pragma once

#include <pthread.h>
#include <sched.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace kelp::bench {

[[noreturn]] inline void give_up(const std::string& why, int error = errno) {
  std::fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, why.c_str(),
               std::strerror(error));
  std::exit(1);
}

/// The calling thread.
inline void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(cpu), &set);
  if (const int rc = ::pthread_setaffinity_np(::pthread_self(), sizeof set, &set); rc != 0) {
    give_up("cannot run on CPU " + std::to_string(cpu), rc);
  }
}

struct BareOptions {
  std::vector<int> cpus;
  double seconds = 0.5;

  /// `app` wants one subcommand, each of which takes these.
  void add_to(CLI::App& app) {
    app.require_subcommand(1);
    app.fallthrough();
    app.add_option("--cpus", cpus, "of who asks, and of who answers")
        ->required()
        ->delimiter(',')
        ->expected(2);
    app.add_option("--seconds", seconds, "how long");
  }
};

}  // namespace kelp::bench
