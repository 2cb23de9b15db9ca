// kelpctl trace: which ways there are to a needle, which of them served it, and how long each step
// took.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// Asks the daemon's /trace, again while it does not know yet where the volume is, then reads the
/// needle's first 4 MiB through the ring, into nowhere. Writes what it found to stdout; a read that
/// fails is told there, and is the command's failure.
Outcome<void> run_trace(const CommonOptions& common, const TraceOptions& options, bool colour);

/// The answer of /trace for people: the parts of the file id, and each path. Pure; a missing or odd
/// field is shown as "-".
std::string view_trace(const nlohmann::json& trace, bool colour);

}  // namespace kelp
