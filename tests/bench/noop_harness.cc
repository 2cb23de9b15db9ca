// No-ops with client and worker in one thread, for counting instructions: submit, poll_once, reap,
// N times.
//
//   valgrind --tool=callgrind --toggle-collect='kelp::Worker::poll_once()' kelp-noop-harness N
#include <cstdio>
#include <cstdlib>

#include "support/test_daemon.h"

int main(int argc, char** argv) {
  const long count = argc == 2 ? std::strtol(argv[1], nullptr, 10) : 0;
  if (count <= 0) return 2;
  kelp::test::TestDaemonOptions options;
  options.drive = kelp::test::TestDaemon::Drive::kStepped;
  options.ring_entries = 64;
  kelp::test::TestDaemon daemon(options);

  kelp_options connect = KELP_OPTIONS_INIT;
  const std::string run_dir = daemon.run_dir();
  connect.run_dir = run_dir.c_str();
  connect.data_bytes = 1 << 16;
  kelp_connection* connection = nullptr;
  kelp_channel* channel = nullptr;
  if (kelp_connect(&connect, &connection) != KELP_OK ||
      kelp_channel_open(connection, &channel) != KELP_OK) {
    std::fprintf(stderr, "%s\n", kelp_error_detail());
    return 1;
  }
  for (long i = 0; i < count; ++i) {
    kelp_request request{};
    request.op = KELP_OP_NOP;
    kelp_completion done;
    std::uint32_t reaped = 0;
    kelp_submit(channel, &request, 1, nullptr);
    while (reaped == 0) {
      daemon.step();
      if (kelp_reap(channel, &done, 1, 0, &reaped) != KELP_OK) return 1;
    }
  }
  kelp_close(connection);
  return 0;
}
