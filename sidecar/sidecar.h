// The HTTP read API that clients of the old SeaweedFS RDMA sidecar speak, on a thread of its own.
// docs/api.md says what it answers; it reads through kelpd's ring like any other program.
#pragma once

#include <memory>
#include <thread>

#include "shm_ring/result.h"
#include "sidecar/counters.h"
#include "sidecar/options.h"

namespace kelp::sidecar {

class Server;

class Sidecar {
 public:
  /// Serves from here on, and attaches to kelpd as soon as that listens; until then what needs it
  /// is answered with 503.
  static Result<std::unique_ptr<Sidecar>> start(Options options);
  /// Closes all connections and ends the thread.
  ~Sidecar();

  /// No connection is taken any more, those without a request are closed, and the others after
  /// their answer; then Options::drained. Any thread.
  void drain() noexcept;

  /// Closes all connections at once, and lets go of what is being read for them. Any thread.
  void cut() noexcept;

  /// Any thread.
  const Counters& counters() const noexcept;

 private:
  explicit Sidecar(std::unique_ptr<Server> server);

  std::unique_ptr<Server> server_;
  std::thread thread_;
};

}  // namespace kelp::sidecar
