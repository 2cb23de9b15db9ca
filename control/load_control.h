// The load generators of the workers: POST /loadgen starts them, GET /loadgen says how far they
// are, POST /loadgen/stop ends them. Control thread.
#pragma once

#include <memory>
#include <vector>

#include "control/http_server.h"
#include "dataplane/worker/load_generator.h"
#include "dataplane/worker/worker.h"

namespace kelp {

class LoadControl {
 public:
  /// POST /loadgen?fids=FID;FID;...&depth=N&size=BYTES&ms=MS&count=N&timeout_ms=MS. Each needle
  /// is read by the worker that owns its volume, `depth` at a time there. `count` is of all
  /// workers together, shared out evenly among those that own any of the volumes.
  /// 400: a parameter that makes no sense. 409: one is under way. 503: not now.
  /// `registrar`, where there is one, registers the buffers, and outlives this.
  HttpResponse start(const HttpRequest& request,
                     const std::vector<std::unique_ptr<Worker>>& workers,
                     MemoryRegistrar* registrar = nullptr);
  HttpResponse stop();
  /// {"state": "idle"|"running"|"done", "requests", "bytes", "statuses": {NAME: N},
  ///  "paths": {NAME: N}}, and once it is done "seconds", "requests_per_s", "bytes_per_s",
  ///  "worker_cpu_s", "latency_us": {"p50", "p90", "p99", "p999", "max"}.
  HttpResponse report() const;

 private:
  bool running() const;
  void forget_loads();

  MemoryRegistrar* registrar_ = nullptr;
  // Outlive the workers.
  std::vector<std::unique_ptr<LoadGenerator>> loads_;
};

}  // namespace kelp
