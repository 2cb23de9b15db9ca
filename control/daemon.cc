#include "control/daemon.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "control/http_routes.h"
#include "control/log.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kHousekeepingMs = 1000;

/// Every client takes two descriptors and two more per ring: use what we may.
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

HugepageUse hugepage_use(HugePages setting) {
  switch (setting) {
    case HugePages::kOff:
      return HugepageUse::kOff;
    case HugePages::kRequire:
      return HugepageUse::kRequire;
    case HugePages::kPrefer:
      break;
  }
  return HugepageUse::kPrefer;
}

AttachLimits attach_limits(const ClientConfig& config) {
  AttachLimits limits;
  limits.ring_entries = config.ring_entries;
  limits.max_clients = config.max_clients;
  limits.max_channels = config.max_channels;
  limits.max_data_bytes = config.max_data_bytes;
  limits.max_timeout_us = std::uint64_t{config.max_timeout_ms} * 1000;
  limits.hugepages = hugepage_use(config.hugepages);
  return limits;
}

WorkerOptions worker_options(const Config& config, std::uint32_t index,
                             const std::vector<std::shared_ptr<ServerPulse>>& pulses) {
  WorkerOptions options;
  options.index = index;
  options.cpu = config.worker.cpus.empty() ? -1 : config.worker.cpus[index];
  options.always_poll = config.worker.polling == Polling::kPoll;
  options.spin_us = config.worker.spin_us;
  options.ops = config.worker.ops;
  options.max_timeout_us = std::uint64_t{config.client.max_timeout_ms} * 1000;
  options.reload_wait_us = std::uint64_t{config.target.reload_wait_ms} * 1000;
  options.inline_inflate_bytes = config.target.inline_inflate_bytes;
  options.trust_local_clients = config.target.trust_local_clients;
  for (std::uint32_t server = 0; server < pulses.size(); ++server) {
    const TargetVolumeServer& from = config.target.volume_servers[server];
    for (std::uint32_t rank = 0; rank < from.dirs.size(); ++rank) {
      options.loader.directories.push_back(
          {from.dirs[rank], from.idx_dir, server + 1, rank, pulses[server]});
    }
  }
  for (const TargetDirectory& directory : config.target.directories) {
    options.loader.directories.push_back({directory.path, directory.idx_dir});
  }
  options.loader.rescan = std::chrono::milliseconds(config.target.rescan_ms);
  options.loader.gzip.max_output_bytes = config.target.gzip_max_output_bytes;
  options.loader.gzip.max_ratio = config.target.gzip_max_ratio;
  return options;
}

}  // namespace

Daemon::Daemon(Config config) : config_(std::move(config)) {}

Daemon::~Daemon() {
  // Threads end before anything they touch goes.
  for (auto& worker : workers_) worker->stop();
  attach_.reset();
}

Result<std::unique_ptr<Daemon>> Daemon::start(Config config) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(config)));
  if (auto done = daemon->set_up(); !done) return tl::unexpected(done.error());
  return daemon;
}

Result<void> Daemon::set_up() {
  raise_descriptor_limit();
  auto run_dir = RunDir::claim(config_.daemon.run_dir);
  if (!run_dir) return tl::unexpected(run_dir.error());
  run_dir_.emplace(std::move(*run_dir));

  UnixListenerOptions socket_options;
  socket_options.mode = config_.client.socket_mode;
  socket_options.group = config_.client.socket_group;
  auto control = UnixListener::create(run_dir_->control_socket(), socket_options);
  if (!control) return tl::unexpected(control.error());
  control_listener_.emplace(std::move(*control));
  socket_options.kind = UnixSocketKind::kSeqPacket;
  auto attach = UnixListener::create(run_dir_->attach_socket(), socket_options);
  if (!attach) return tl::unexpected(attach.error());
  attach_listener_.emplace(std::move(*attach));

  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll_) return system_error("cannot create the control thread's epoll set");
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return system_error("cannot receive signals");

  for (std::size_t i = 0; i < config_.target.volume_servers.size(); ++i) {
    pulses_.push_back(std::make_shared<ServerPulse>());
  }
  const std::size_t count = std::max<std::size_t>(config_.worker.cpus.size(), 1);
  std::vector<Worker*> workers;
  for (std::uint32_t i = 0; i < count; ++i) {
    workers_.push_back(std::make_unique<Worker>(worker_options(config_, i, pulses_)));
    if (auto started = workers_.back()->start(waker_); !started) return started;
    workers.push_back(workers_.back().get());
  }
  attach_ = std::make_unique<AttachServer>(attach_listener_->fd(), epoll_.get(),
                                           attach_limits(config_.client), workers);

  auto http = HttpServer::create(control_listener_->fd(), routes());
  if (!http) return tl::unexpected(http.error());
  http_.emplace(std::move(*http));

  if (auto watched = watch_servers(); !watched) return watched;
  for (const auto& [fd, id] : {std::pair{signals_.get(), kSignals}, std::pair{waker_.fd(), kWakes},
                               std::pair{http_->epoll_fd(), kHttp}}) {
    if (auto watched = watch(fd, id); !watched) return watched;
  }
  return attach_->start(kAttach);
}

Result<void> Daemon::watch_servers() {
  std::vector<WatchedServer> servers;
  for (std::size_t i = 0; i < pulses_.size(); ++i) {
    const TargetVolumeServer& server = config_.target.volume_servers[i];
    servers.push_back({server.url, server.dirs.size(), pulses_[i]});
  }
  auto created = VolumeServerWatch::create(std::move(servers), [this](std::uint32_t server) {
    return workers_.front()->loader().catalog().attestations(server);
  });
  if (!created) return tl::unexpected(created.error());
  servers_ = std::move(*created);
  return watch(servers_->epoll_fd(), kServers);
}

Result<void> Daemon::watch(int fd, std::uint64_t id) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = id;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return system_error("cannot watch a descriptor of the control thread");
  }
  return {};
}

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
  routes.add("GET", "/metrics", [this](const HttpRequest&) {
    HttpResponse response;
    response.content_type = "text/plain; version=0.0.4; charset=utf-8";
    response.body = metrics_text(sources());
    return response;
  });
  return routes;
}

ReportSources Daemon::sources() const {
  ReportSources sources;
  sources.config = &config_;
  for (const auto& worker : workers_) sources.workers.push_back(worker.get());
  sources.clients = attach_->clients();
  sources.hugepage_note = attach_->hugepage_note();
  sources.servers = servers_.get();
  sources.draining = drain_deadline_.has_value();
  sources.started = started_;
  return sources;
}

int Daemon::run() {
  log_info("kelpd is ready", {{"run_dir", run_dir_->path()},
                              {"workers", std::to_string(workers_.size())},
                              {"volume_servers", std::to_string(pulses_.size())},
                              {"directories", std::to_string(config_.target.directories.size())}});
  while (!done_) {
    serve_once(next_timeout_ms());
    attach_->expire();
    if (drain_deadline_ && Clock::now() >= *drain_deadline_) {
      log_warning("requests were still in flight when the drain timeout passed");
      leave_at_once();
    }
  }
  log_info("kelpd stops");
  return 0;
}

void Daemon::leave_at_once() {
  // A thread that waits for a dead disk cannot be joined. The kernel closes what is open; only the
  // socket files have to be taken away.
  attach_listener_.reset();
  control_listener_.reset();
  ::_exit(1);
}

int Daemon::next_timeout_ms() const {
  auto timeout = std::chrono::milliseconds(kHousekeepingMs);
  if (const auto http = http_->timeout()) timeout = std::min(timeout, *http);
  if (const auto servers = servers_->timeout()) timeout = std::min(timeout, *servers);
  if (drain_deadline_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*drain_deadline_ - Clock::now());
    timeout = std::clamp(left, std::chrono::milliseconds(0), timeout);
  }
  return static_cast<int>(timeout.count());
}

void Daemon::serve_once(int timeout_ms) {
  waker_.arm();
  take_reports();
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                                 done_ || servers_->has_wishes() ? 0 : timeout_ms);
  waker_.disarm();
  for (int i = 0; i < count; ++i) handle_event(events[static_cast<std::size_t>(i)].data.u64);
  take_reports();
  // Also when nothing is ready: connections that are too slow are closed by it.
  http_->run();
  servers_->run();
}

void Daemon::handle_event(std::uint64_t id) {
  switch (id) {
    case kSignals:
      take_signal();
      return;
    case kWakes:
    case kHttp:
    case kServers:
      return;
    case kAttach:
      attach_->accept_some();
      return;
    default:
      attach_->handle(id);
      return;
  }
}

void Daemon::take_reports() {
  for (auto& worker : workers_) {
    while (const std::optional<WorkerReport> report = worker->take_report()) {
      if (report->kind == WorkerReport::Kind::kDrained) {
        if (--workers_draining_ == 0) done_ = true;
      } else {
        attach_->handle(*report);
      }
    }
  }
}

void Daemon::take_signal() {
  signalfd_siginfo info;
  if (::read(signals_.get(), &info, sizeof info) != static_cast<ssize_t>(sizeof info)) return;
  if (drain_deadline_) {
    log_warning("second signal: stops without waiting for requests in flight");
    leave_at_once();
  }
  log_info("draining", {{"signal", std::to_string(info.ssi_signo)},
                        {"timeout_ms", std::to_string(config_.daemon.drain_timeout_ms)}});
  drain_deadline_ = Clock::now() + std::chrono::milliseconds(config_.daemon.drain_timeout_ms);
  attach_->close_listener();
  workers_draining_ = workers_.size();
  for (auto& worker : workers_) {
    while (!worker->command({WorkerCommand::Kind::kDrain, nullptr})) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

}  // namespace kelp
