// The load generator as a function, so that tests can run it.
#pragma once

namespace kelp::bench {

/// Parses, prepares, runs, reports. Answers the exit code. Changes the process: SIGINT and SIGTERM
/// end a run early, SIGPIPE is ignored.
int run_kelp_bench(int argc, char** argv);

}  // namespace kelp::bench
