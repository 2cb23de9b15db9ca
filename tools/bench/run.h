// Runs readers side by side for a while, and weighs what that cost in time and CPU.
#pragma once

#include <ctime>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "tools/bench/reader.h"

namespace kelp::bench {

/// CPU time of another process, all of its threads. Nothing where it cannot be read.
class ProcessCpu {
 public:
  ProcessCpu() = default;
  explicit ProcessCpu(int pid);
  std::optional<double> seconds() const;

 private:
  std::optional<clockid_t> clock_;
};

/// What one run, or one slice of it, came to.
struct Measured {
  Tally tally;
  double seconds = 0;
  double client_cpu_s = 0;
  std::optional<double> server_cpu_s;  ///< of kelpd, or of the HTTP server

  double reads_per_s() const;
  double bytes_per_s() const;
  /// Answered reads per second of CPU time, client's and server's together; nothing where the
  /// server's is not known.
  std::optional<double> reads_per_cpu_s() const;
  void add(const Measured& slice);
};

using Readers = std::vector<std::unique_ptr<Reader>>;

/// Called about once a second on the calling thread, with the latencies so far.
using Watch = std::function<void(const Histogram& latency, double seconds)>;

/// A thread per reader, until `stop`; stop.reads is what they do together. Fails if any of them
/// cannot go on; the others then end too.
Outcome<std::unique_ptr<Measured>> run_readers(const Readers& readers, Stop stop,
                                               const ProcessCpu& server, const Watch& watch = {});

}  // namespace kelp::bench
