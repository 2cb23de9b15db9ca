// The command line tool as a function, so that tests can run it.
#pragma once

namespace kelp {

/// Parses, runs one command, reports. Answers the exit code. Changes the process: SIGPIPE is
/// ignored, and closed standard descriptors are opened on /dev/null.
int run_kelpctl(int argc, char** argv);

}  // namespace kelp
