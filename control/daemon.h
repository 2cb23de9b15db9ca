// The control thread: owns everything, serves health and stats, admits clients, drains and stops.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "control/attach_server.h"
#include "control/config.h"
#include "control/http_routes.h"
#include "control/http_server.h"
#include "control/reports.h"
#include "control/run_dir.h"
#include "control/unix_listener.h"
#include "control/volume_server_watch.h"
#include "dataplane/worker/waker.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class Daemon {
 public:
  /// Claims the run directory, opens the sockets, starts the workers. SIGTERM and SIGINT must be
  /// blocked already in this and every thread: they are read from a descriptor.
  static Result<std::unique_ptr<Daemon>> start(Config config);
  ~Daemon();

  /// Serves until SIGTERM or SIGINT, then drains for at most daemon.drain_timeout_ms. Returns the
  /// exit status; if requests are still in flight then, or a second signal comes, ends the process
  /// with status 1 instead.
  int run();

 private:
  explicit Daemon(Config config);
  Result<void> set_up();
  Result<void> watch_servers();
  Result<void> watch(int fd, std::uint64_t id);
  void serve_once(int timeout_ms);
  void handle_event(std::uint64_t id);
  void take_signal();
  [[noreturn]] void leave_at_once();
  void take_reports();
  int next_timeout_ms() const;
  ReportSources sources() const;
  HttpRoutes routes();

  // Ids of the descriptors in the epoll set; connections come after kFirstFree.
  static constexpr std::uint64_t kSignals = 1;
  static constexpr std::uint64_t kWakes = 2;
  static constexpr std::uint64_t kHttp = 3;
  static constexpr std::uint64_t kServers = 4;
  static constexpr std::uint64_t kAttach = 16;

  const Config config_;
  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  std::optional<RunDir> run_dir_;
  std::optional<UnixListener> attach_listener_;
  std::optional<UnixListener> control_listener_;
  UniqueFd epoll_;
  UniqueFd signals_;
  Waker waker_;
  std::optional<HttpServer> http_;
  // Clients before workers in destruction: no worker may outlive what it writes to, so workers are
  // stopped in the destructor first.
  std::unique_ptr<AttachServer> attach_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::shared_ptr<ServerPulse>> pulses_;  // of the volume servers, in their order
  std::unique_ptr<VolumeServerWatch> servers_;
  std::size_t workers_draining_ = 0;
  std::optional<std::chrono::steady_clock::time_point> drain_deadline_;
  bool done_ = false;
};

}  // namespace kelp
