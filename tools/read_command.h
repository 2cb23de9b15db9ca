// kelpctl read: the bytes of a needle on stdout or in a file.
#pragma once

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// Writes the bytes and nothing else. A needle larger than one chunk is read in several; should it
/// be overwritten meanwhile, the command fails rather than mix two of them.
/// With json, one object about the read goes to stderr: stdout holds bytes only.
Outcome<void> run_read(const CommonOptions& common, const ReadOptions& options);

}  // namespace kelp
