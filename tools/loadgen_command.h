// kelpctl loadgen: starts the load generators of the daemon's workers, waits for their end, and
// shows how fast they were.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// Needles of a load: canonical file ids, as many from the first one on as one load takes.
struct LoadNeedles {
  std::vector<std::string> fids;
  std::size_t named = 0;  ///< how many there would have been
};

/// Of the command line, or of the file it names: one per line; empty lines and those that start
/// with # do not count. What is not taken is not looked at.
Outcome<LoadNeedles> load_needles(const LoadgenOptions& options);

/// What is POSTed: "/loadgen?fids=...&depth=...". Pure.
std::string loadgen_path(const LoadgenOptions& options, const std::vector<std::string>& fids);

/// Until the load is over, or SIGINT or SIGTERM: the first of them ends the load, the second does
/// not wait for what is in flight. Writes what there is to stdout, as it came with --json.
/// Requests that were not ok are the command's failure, without a sentence: the table has them.
Outcome<void> run_loadgen(const CommonOptions& common, const LoadgenOptions& options, bool colour);

/// The answer of /loadgen for people. Pure; a missing or odd field is shown as "-".
std::string view_loadgen(const nlohmann::json& report, bool colour);

}  // namespace kelp
