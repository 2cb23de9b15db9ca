// What operators ask for: reports, reload, drain, the kill switch; by HTTP and by signal.
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>

#include "control/daemon.h"
#include "control/daemon_options.h"
#include "control/devices_json.h"
#include "control/locked_memory.h"
#include "control/log.h"
#include "control/peers_json.h"
#include "control/trace_report.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

/// What a drain waits at least: a worker needs a moment to say that nothing is in flight.
constexpr std::chrono::milliseconds kShortestDrain{200};

std::string names(const std::vector<ConfigChange>& changes) {
  std::string text;
  for (const ConfigChange& change : changes) text += (text.empty() ? "" : " ") + change.key;
  return text;
}

}  // namespace

HttpRoutes Daemon::routes() {
  HttpRoutes routes;
  const auto json = [&](const char* path, std::string (*report)(const ReportSources&)) {
    routes.add("GET", path, [this, report](const HttpRequest&) {
      HttpResponse response;
      response.body = report(sources());
      return response;
    });
  };
  json("/health", health_json);
  json("/stats", stats_json);
  json("/volumes", volumes_json);
  json("/config", config_json);
  routes.add("GET", "/clients", [this](const HttpRequest&) {
    HttpResponse response;
    response.body = clients_json(attach_->client_reports());
    return response;
  });
  routes.add_prefix("GET", "/volumes/", [this](const HttpRequest& request) {
    std::vector<const Catalog*> catalogs;
    for (const auto& worker : workers_) catalogs.push_back(&worker->loader().catalog());
    return listing_.answer(request, catalogs);
  });
  routes.add("GET", "/trace", [this](const HttpRequest& request) {
    const auto given = request.query.find("fid");
    const bool alone = given != request.query.end() && request.query.size() == 1;
    const std::optional<FileId> fid = alone ? parse_file_id(given->second) : std::nullopt;
    if (!fid) return http_error(400, "a trace takes fid=FID, a file id like 3,01637037d6");
    if (gateway_ != nullptr) gateway_->look_up(fid->volume);
    HttpResponse response;
    response.body = trace_json(*fid, sources());
    return response;
  });
  routes.add("GET", "/peers", [this](const HttpRequest&) {
    HttpResponse response;
    std::optional<PeersReport> report = peers_report();
    if (report && rdma_ != nullptr) report->rdma_ports = rdma_port_counters();
    response.body = peers_json(report);
    return response;
  });
  routes.add("GET", "/devices", [this](const HttpRequest&) {
    HttpResponse response;
    response.body = devices_json(list_rdma_devices(), locked_memory(config_), lock_limit_bytes());
    return response;
  });
  routes.add("GET", "/metrics", [this](const HttpRequest&) {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    ReportSources all = sources();
    all.peers = peers_report();
    all.rdma_ports = rdma_port_counters();
    if (sidecar_ != nullptr) all.sidecar = &sidecar_->counters();
    response.body = metrics_text(all);
    return response;
  });
  add_operator_routes(routes);
  return routes;
}

void Daemon::add_operator_routes(HttpRoutes& routes) {
  routes.add("POST", "/reload", [this](const HttpRequest&) {
    const Result<ConfigReload> done = reload();
    if (!done) return http_error(422, done.error().what);
    HttpResponse response;
    response.body = reload_json(*done);
    return response;
  });
  const auto action = [&](const char* path, const char* status, auto act) {
    routes.add("POST", path, [this, status, act](const HttpRequest&) {
      act(*this);
      HttpResponse response;
      response.body = std::string("{\"status\": \"") + status + "\"}\n";
      return response;
    });
  };
  action("/drain", "draining", [](Daemon& daemon) { daemon.start_drain("POST /drain"); });
  action("/disable", "disabled", [](Daemon& daemon) { daemon.set_serving(false); });
  action("/enable", "enabled", [](Daemon& daemon) { daemon.set_serving(true); });
  routes.add("GET", "/loadgen", [this](const HttpRequest&) { return load_.report(); });
  routes.add("POST", "/loadgen", [this](const HttpRequest& request) {
    return load_.start(request, workers_, registrar());
  });
  routes.add("POST", "/loadgen/stop", [this](const HttpRequest&) { return load_.stop(); });
}

ReportSources Daemon::sources() const {
  ReportSources sources;
  sources.config = &config_;
  for (const auto& worker : workers_) sources.workers.push_back(worker.get());
  sources.clients = attach_->clients();
  sources.hugepage_note = attach_->hugepage_note();
  sources.servers = servers_.get();
  if (gateway_ != nullptr) sources.gateway = gateway_->report();
  sources.tcp_obstacle = tcp_obstacle_;
  sources.draining = drain_deadline_.has_value();
  sources.disabled = disabled_;
  sources.reload_error = reload_error_;
  sources.started = started_;
  return sources;
}

std::optional<PeersReport> Daemon::peers_report() const {
  if (peers_ == nullptr) return std::nullopt;
  PeersReport report{peers_->reports(), peers_->counters()};
  if (rdma_ == nullptr) return report;
  for (PeerReport& peer : rdma_->reports()) report.peers.push_back(std::move(peer));
  report.by_rdma = rdma_->counters();
  report.pinned_bytes = rdma_->pinned_bytes();
  return report;
}

void Daemon::take_signals() {
  signalfd_siginfo info;
  while (::read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGHUP) {
      // What it came to is in the log, and in /health.
      [[maybe_unused]] const auto done = reload();
    } else if (drain_deadline_) {
      log_warning("second signal: stops without waiting for requests in flight");
      leave_at_once();
    } else {
      start_drain("signal " + std::to_string(info.ssi_signo));
    }
  }
}

Result<ConfigReload> Daemon::reload() {
  service_.reloading();
  CommandLine flags = flags_;
  // The file that was read at the start, also where nobody named it: if it is gone now, that is an
  // error and not a wish for the defaults.
  if (!config_.file.empty()) flags.config_file = config_.file;
  Result<ConfigReload> done = load_config(flags).and_then(
      [&](const Config& wanted) { return apply_reload(config_, wanted); });
  service_.ready();  // reloaded or not, clients are served
  if (!done) {
    reload_error_ = done.error().what;
    log_error("the configuration is not reloaded, the old settings stay",
              {{"reason", reload_error_}});
    return done;
  }
  reload_error_.clear();
  set_log_level(config_.daemon.log_level);
  set_log_format(config_.daemon.log_format);
  attach_->set_limits(attach_limits(config_.client));
  for (std::uint32_t i = 0; i < workers_.size(); ++i) {
    workers_[i]->retune(worker_options(config_, i, pulses_));
  }
  log_info("configuration reloaded",
           {{"applied", names(done->applied)}, {"needs_restart", names(done->needs_restart)}});
  return done;
}

void Daemon::start_drain(std::string_view asked_by) {
  if (drain_deadline_) return;
  log_info("draining", {{"asked_by", std::string(asked_by)},
                        {"timeout_ms", std::to_string(config_.daemon.drain_timeout_ms)}});
  const auto timeout = std::chrono::milliseconds(config_.daemon.drain_timeout_ms);
  drain_deadline_ = Clock::now() + std::max(timeout, kShortestDrain);
  service_.stopping();
  attach_->close_listener();
  if (peers_ != nullptr) peers_->stop();
  if (rdma_ != nullptr) rdma_->drain();
  if (sidecar_ == nullptr) return drain_workers();
  // What it has begun to answer takes more reads. Half the time is for those who take it slowly.
  sidecar_drain_deadline_ = Clock::now() + timeout / 2;
  sidecar_->drain();
}

void Daemon::keep_draining() {
  if (!sidecar_drain_deadline_) return;
  // relaxed: nothing else is read by it.
  const bool drained = sidecar_drained_.load(std::memory_order_relaxed);
  if (!drained && Clock::now() < *sidecar_drain_deadline_) return;
  sidecar_drain_deadline_.reset();
  if (!drained) log_warning("clients of the HTTP read API took too long; their answers are cut");
  sidecar_->cut();  // also what is read for those who have left
  drain_workers();
}

void Daemon::drain_workers() {
  workers_draining_ = workers_.size();
  tell_workers(WorkerCommand::Kind::kDrain);
}

void Daemon::set_serving(bool serving) {
  if (disabled_ == !serving) return;
  disabled_ = !serving;
  for (auto& worker : workers_) worker->set_serving(serving);
  sidecar_facts_->serving.store(serving, std::memory_order_relaxed);  // relaxed: words for /health
  if (serving) {
    log_info("enabled: volumes are read again");
  } else {
    log_warning("disabled: every read is sent to HTTP");
  }
}

}  // namespace kelp
