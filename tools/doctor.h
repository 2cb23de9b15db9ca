// kelpctl doctor: looks at the host, the run directory, the daemon and the servers it knows.
#pragma once

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// Writes a line per check. Fails, without a sentence of its own, if any of them does.
Outcome<void> run_doctor(const CommonOptions& common, const DoctorOptions& options, bool colour);

}  // namespace kelp
