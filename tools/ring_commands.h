// kelpctl ping, bench and capabilities: what the test tool of the old RDMA sidecar could be asked,
// of a running kelpd. ping and bench go the whole way of a program, through a ring of their own.
#pragma once

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// No-ops through the ring, one after the other; writes how long they took to stdout.
Outcome<void> run_ping(const CommonOptions& common, const PingOptions& options, bool colour);

/// Reads of the needles in turn, one after the other, into memory shared with the daemon. Reads
/// that fail are counted, and are the command's failure without a sentence: the table has them.
Outcome<void> run_bench(const CommonOptions& common, const BenchOptions& options, bool colour);

/// What the daemon can do and up to what limits, of its control socket.
Outcome<void> run_capabilities(const CommonOptions& common, bool colour);

}  // namespace kelp
