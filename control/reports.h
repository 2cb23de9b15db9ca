// What the daemon tells people, as JSON and as Prometheus text. docs/kelpctl.md names the fields.
// Control thread; reads counters while workers write them.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "control/client_report.h"
#include "control/config.h"
#include "control/config_reload.h"
#include "control/gateway/gateway_report.h"
#include "control/peer_metrics.h"
#include "control/volume_server_watch.h"
#include "dataplane/worker/worker.h"
#include "sidecar/counters.h"

namespace kelp {

/// What the reports draw from; all outlives the call.
struct ReportSources {
  const Config* config = nullptr;
  std::vector<const Worker*> workers;
  const VolumeServerWatch* servers = nullptr;
  std::optional<GatewayReport> gateway;  ///< nothing: there is none
  std::optional<PeersReport> peers;      ///< nothing: no other kelpd is spoken to
  std::vector<RdmaPortCounters> rdma_ports;
  const sidecar::Counters* sidecar = nullptr;  ///< null: there is no HTTP read API
  std::size_t clients = 0;
  std::string hugepage_note;  ///< "" or why ordinary pages are used
  std::string tcp_obstacle;   ///< "" or why no other kelpd can be spoken to by TCP
  bool draining = false;
  bool disabled = false;     ///< by the kill switch
  std::string reload_error;  ///< why the last reload changed nothing; "" if it did not fail
  std::chrono::steady_clock::time_point started;
};

/// Of all workers, by key.
std::vector<VolumeReport> volume_reports(const ReportSources& sources);

/// "serving", "loading", "use_http", "refused"
const char* volume_state_name(VolumeState state) noexcept;

/// It is open, and not served: its server does not vouch for it at this moment.
bool is_revoked(const VolumeReport& volume);

/// {"status": "healthy" | "degraded" | "failed", "reasons": [...], "notes": [...], ...}
std::string health_json(const ReportSources& sources);
std::string stats_json(const ReportSources& sources);
std::string volumes_json(const ReportSources& sources);
/// {"clients": [...]} in the order they came
std::string clients_json(const std::vector<ClientReport>& clients);
std::string config_json(const ReportSources& sources);
/// {"applied": [{"key", "from", "to"}], "needs_restart": [the same]}
std::string reload_json(const ConfigReload& reload);
std::string metrics_text(const ReportSources& sources);

}  // namespace kelp
