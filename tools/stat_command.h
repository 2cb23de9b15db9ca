// kelpctl stat: what is known about a needle.
#pragma once

#include <string>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// The text for stdout: facts, or with json one object.
Outcome<std::string> run_stat(const CommonOptions& common, const std::string& fid,
                              std::uint32_t timeout_ms, bool colour);

}  // namespace kelp
