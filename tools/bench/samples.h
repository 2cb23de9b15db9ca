// Latencies of one kind, and what is told about them. One thread at a time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace kelp::bench {

/// The value that `fraction` (0..1] of all values do not exceed; 0 where there are none.
inline double quantile(std::vector<double> values, double fraction) {
  if (values.empty()) return 0;
  const double rank = fraction * static_cast<double>(values.size() - 1);
  const auto nth = values.begin() + static_cast<std::ptrdiff_t>(rank + 0.5);
  std::nth_element(values.begin(), nth, values.end());
  return *nth;
}

inline double median(std::vector<double> values) {
  return quantile(std::move(values), 0.5);
}

}  // namespace kelp::bench
