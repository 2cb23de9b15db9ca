// The bytes reads are held against: fetched before the run, kept in memory, so that comparing costs
// a memcmp() and any range can be compared.
#pragma once

#include <vector>

#include "tools/bench/objects.h"

namespace kelp::bench {

/// Fills Object::expected from options.verify: the volume server's answers over HTTP, or what the
/// daemon answers, provided its SHA-256 is the one the file says. A sum that does not fit is
/// kWrongBytes; an object the file does not name is ExitCode::kUsage. At most 2 GiB in all.
Outcome<void> fetch_expected(const Options& options, std::vector<Object>& objects);

}  // namespace kelp::bench
