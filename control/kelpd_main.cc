// kelpd: command line, configuration, then the control thread's loop.
#include <signal.h>

#include <cstdio>

#include "control/config.h"
#include "control/daemon.h"
#include "control/daemon_options.h"
#include "control/log.h"

namespace {

int fail(const kelp::Error& error) {
  std::fprintf(stderr, "kelpd: %s\n", error.what.c_str());
  return 1;
}

/// Before any thread starts, so that all inherit it: signals are read by the control thread.
void block_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int main(int argc, char** argv) {
  const auto flags = kelp::parse_command_line(argc, argv);
  if (!flags) {
    std::fprintf(stderr, "kelpd: %s\n", flags.error().what.c_str());
    return 2;
  }
  if (flags->answer) {
    std::fputs(flags->answer->c_str(), stdout);
    return 0;
  }
  auto config = kelp::load_config(*flags);
  if (!config) return fail(config.error());
  if (flags->check) {
    // What a start makes of it, short of opening anything but the files with keys.
    const auto gateway = kelp::gateway_options(*config);
    if (!gateway) return fail(gateway.error());
    const auto peers = kelp::peer_options(*config);
    if (!peers) return fail(peers.error());
    const auto rdma = kelp::rdma_options(*config);
    if (!rdma) return fail(rdma.error());
    std::puts("the configuration is sound");
    return 0;
  }
  block_signals();
  kelp::set_log_level(config->daemon.log_level);
  kelp::set_log_format(config->daemon.log_format);
  auto daemon = kelp::Daemon::start(std::move(*config), *flags);
  if (!daemon) return fail(daemon.error());
  return (*daemon)->run();
}
