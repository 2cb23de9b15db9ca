// What happens before a run: learning sizes, fetching the bytes that will be expected, attaching.
#pragma once

#include <memory>
#include <vector>

#include "tools/bench/reader.h"
#include "tools/bench/run.h"

namespace kelp::bench {

/// Answers were not what they should have been; beside tools/exit_code.h's codes.
constexpr ExitCode kReadsFailed = ExitCode::kReadsFailed;
constexpr ExitCode kWrongBytes{21};

struct CloseConnection {
  void operator()(kelp_connection* connection) const noexcept { kelp_close(connection); }
};
using Connection = std::unique_ptr<kelp_connection, CloseConnection>;

/// The objects, with their sizes and contents as far as `options` need them.
Outcome<std::unique_ptr<Work>> prepare_work(const Options& options);

/// Attaches with room for all reads of all threads.
Outcome<Connection> attach(const Options& options, const Work& work);

/// The daemon's CPU time, where this machine shows it: the process that /health names.
ProcessCpu daemon_cpu(const CommonOptions& common);

}  // namespace kelp::bench
