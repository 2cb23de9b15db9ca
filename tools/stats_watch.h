// kelpctl stats --watch: what the workers do per second, again and again.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// What one worker did between two answers of /stats.
struct WorkerRates {
  std::string id;
  double reads = 0;  ///< per second, as all that follow
  double bytes = 0;
  double not_ok = 0;  ///< completions of any status but ok
  double storage_waits = 0;
  double sleeps = 0;
  double cpu = 0;      ///< of one CPU: 1 is all of it
  std::string p50_us;  ///< of reads, since the daemon's start
  std::string p99_us;
};

/// Workers of `now` that `before` has too; a daemon that was started anew meanwhile has none.
std::vector<WorkerRates> worker_rates(const nlohmann::json& before, const nlohmann::json& now);

/// Until SIGINT or SIGTERM, which end it well.
Outcome<void> watch_stats(const CommonOptions& common, std::uint32_t period_s);

}  // namespace kelp
