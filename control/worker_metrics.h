// The names, units and sentences of everything a worker counts, once for /stats and /metrics.
// Control thread.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/worker/worker.h"
#include "shm_ring/histogram.h"

namespace kelp {

struct WorkerMetric {
  std::string name;   ///< "completions"
  std::string label;  ///< of a family: the status's name; else ""
  const char* help;
  std::uint64_t value;
};

std::vector<WorkerMetric> worker_metrics(const Worker& worker);

/// Service times in nanoseconds: "read", "stat", "nop".
std::vector<std::pair<std::string, const Histogram*>> worker_histograms(const Worker& worker);

}  // namespace kelp
