// What /metrics tells of the HTTP read API. Any thread.
#pragma once

#include "control/exposition.h"
#include "sidecar/counters.h"

namespace kelp {

void write_sidecar_metrics(Exposition& out, const sidecar::Counters& counters);

}  // namespace kelp
