// What a run came to, for people and for programs.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tools/bench/run.h"

namespace kelp::bench {

/// One pair of slices, Kelp's and HTTP's: how many times better Kelp was.
struct PairRatios {
  std::vector<double> p50, p99;     ///< HTTP latency / Kelp latency
  std::vector<double> reads_per_s;  ///< Kelp / HTTP
  std::vector<double> per_cpu_s;    ///< Kelp / HTTP; empty where CPU times are not known
  void add(const Measured& kelp, const Measured& http);
};

struct Results {
  Measured kelp;
  std::optional<Measured> http;  ///< with --against-http
  PairRatios ratios;
  std::size_t objects = 0;
  bool verified = false;     ///< every byte was compared
  bool interrupted = false;  ///< the figures are of the part that was run
};

/// Aligned lines; colours only where `colour` says so.
std::string report_table(const Results& results, bool colour);

/// {"objects", "verified", "interrupted", "options": {...}, "kelp": {...}, "http": {...},
/// "ratios"}.
std::string report_json(const Results& results, const Options& options);

}  // namespace kelp::bench
