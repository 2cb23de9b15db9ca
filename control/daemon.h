// The control thread: owns everything, serves health and stats, admits clients, drains and stops.
// daemon.cc sets up and loops; daemon_control.cc is what operators ask for, by HTTP and by signal;
// daemon_sidecar.cc is the HTTP read API.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "control/attach_server.h"
#include "control/config.h"
#include "control/config_reload.h"
#include "control/gateway/gateway.h"
#include "control/http_routes.h"
#include "control/http_server.h"
#include "control/load_control.h"
#include "control/needle_listing.h"
#include "control/peers/peer_connections.h"
#include "control/peers/rdma_connections.h"
#include "control/reports.h"
#include "control/run_dir.h"
#include "control/service_manager.h"
#include "control/unix_listener.h"
#include "control/volume_server_watch.h"
#include "control/worker_watch.h"
#include "dataplane/worker/waker.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"
#include "sidecar/sidecar.h"

namespace kelp {

class Daemon {
 public:
  /// Claims the run directory, opens the sockets, becomes daemon.user, starts the workers. The
  /// process has no other thread yet. SIGTERM, SIGINT and
  /// SIGHUP must be blocked already in this and every thread: they are read from a descriptor.
  /// `flags` are those `config` was loaded with: a reload loads it again.
  static Result<std::unique_ptr<Daemon>> start(Config config, CommandLine flags);
  ~Daemon();

  /// Serves until SIGTERM or SIGINT, then drains for at most daemon.drain_timeout_ms. Returns the
  /// exit status; if requests are still in flight then, or a second signal comes, ends the process
  /// with status 1 instead.
  int run();

 private:
  Daemon(Config config, CommandLine flags);
  Result<void> set_up();
  Result<void> open_descriptors(FileOwner owner);
  Result<void> read_gateway_options();
  Result<void> start_workers();
  Result<void> start_gateway();
  static void give_way_to_workers();
  void keep_house();
  Result<void> open_peers();
  Result<void> open_rdma();
  Result<void> watch_servers();
  Result<void> watch(int fd, std::uint64_t id);
  void serve_once(int timeout_ms);
  void handle_event(std::uint64_t id);
  [[noreturn]] void leave_at_once();
  MemoryRegistrar* registrar() { return rdma_ == nullptr ? nullptr : rdma_->registrar(); }
  void let_signals_end_us();
  void remove_sockets();
  void take_reports();
  int next_timeout_ms() const;
  void tell_workers(WorkerCommand::Kind kind);

  // daemon_sidecar.cc
  Result<void> open_sidecar_ports();
  Result<void> open_sidecar_socket(UnixListenerOptions options);
  Result<void> start_sidecar();

  // daemon_control.cc
  ReportSources sources() const;
  std::optional<PeersReport> peers_report() const;
  HttpRoutes routes();
  void add_operator_routes(HttpRoutes& routes);
  void take_signals();
  /// Reads the configuration again, and applies what may change; else the sentence why not.
  Result<ConfigReload> reload();
  void start_drain(std::string_view asked_by);
  void keep_draining();
  void drain_workers();
  void set_serving(bool serving);

  // Ids of the descriptors in the epoll set; connections come after kFirstFree.
  static constexpr std::uint64_t kSignals = 1;
  static constexpr std::uint64_t kWakes = 2;
  static constexpr std::uint64_t kHttp = 3;
  static constexpr std::uint64_t kServers = 4;
  static constexpr std::uint64_t kPeers = 5;
  static constexpr std::uint64_t kRdma = 6;
  static constexpr std::uint64_t kAttach = 16;

  const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
  Config config_;
  const CommandLine flags_;
  ServiceManager service_;
  WorkerWatch watch_{service_.watchdog()};
  std::chrono::steady_clock::time_point last_suppressed_ = started_;
  std::string reload_error_;  ///< of the last reload; "" where it went well
  bool disabled_ = false;
  std::optional<RunDir> run_dir_;
  std::optional<UnixListener> attach_listener_;
  std::optional<UnixListener> control_listener_;
  std::optional<UnixListener> http_listener_;
  UniqueFd epoll_;
  UniqueFd signals_;
  Waker waker_;
  NeedleListing listing_{waker_};
  LoadControl load_;
  std::optional<HttpServer> http_;
  // Clients before workers in destruction: no worker may outlive what it writes to, so workers are
  // stopped in the destructor first.
  std::unique_ptr<AttachServer> attach_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<std::shared_ptr<ServerPulse>> pulses_;  // of the volume servers, in their order
  std::unique_ptr<VolumeServerWatch> servers_;
  std::optional<RdmaOptions> rdma_options_;
  std::unique_ptr<RdmaConnections> rdma_;   // none: there is no device, or it is not wanted
  std::unique_ptr<PeerConnections> peers_;  // none: no other kelpd is known
  std::string tcp_obstacle_;                // why they cannot be spoken to by TCP; "": they can
  std::optional<GatewayOptions> gateway_options_;
  std::unique_ptr<Gateway> gateway_;  // none: what is not here is read by nobody
  std::vector<UniqueFd> sidecar_listeners_;
  std::shared_ptr<sidecar::Facts> sidecar_facts_ = std::make_shared<sidecar::Facts>();
  std::atomic<bool> sidecar_drained_{false};
  std::unique_ptr<sidecar::Sidecar> sidecar_;  // none: no HTTP read API
  std::size_t workers_draining_ = 0;
  std::optional<std::chrono::steady_clock::time_point> drain_deadline_;
  /// While the HTTP read API's clients are waited for; then the workers drain.
  std::optional<std::chrono::steady_clock::time_point> sidecar_drain_deadline_;
  bool done_ = false;
};

}  // namespace kelp
