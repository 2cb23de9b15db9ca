#include "control/daemon.h"

#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <thread>

#include "control/daemon_options.h"
#include "control/locked_memory.h"
#include "control/log.h"
#include "control/log_limiter.h"
#include "control/privileges.h"
#include "dataplane/transport/uring.h"
#include "dataplane/transport/verbs/rdma_devices.h"

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

}  // namespace

Daemon::Daemon(Config config, CommandLine flags)
    : config_(std::move(config)), flags_(std::move(flags)) {}

Daemon::~Daemon() {
  // The sidecar is a program of ours, and ends first. Nothing of another host lands any more then;
  // threads end before anything they touch goes.
  sidecar_.reset();
  if (rdma_ != nullptr) rdma_->stop();
  for (auto& worker : workers_) worker->stop();
  gateway_.reset();
  attach_.reset();
  workers_.clear();
}

Result<std::unique_ptr<Daemon>> Daemon::start(Config config, CommandLine flags) {
  std::unique_ptr<Daemon> daemon(new Daemon(std::move(config), std::move(flags)));
  if (auto done = daemon->set_up(); !done) return tl::unexpected(done.error());
  return daemon;
}

Result<void> Daemon::set_up() {
  raise_descriptor_limit();
  if (auto read = read_gateway_options(); !read) return read;
  if (auto opened = open_peers(); !opened) return opened;
  if (auto opened = open_sidecar_ports(); !opened) return opened;
  const auto identity = find_identity(config_.daemon.user, config_.daemon.group);
  if (!identity) return tl::unexpected(identity.error());
  FileOwner owner;
  if (*identity) owner = {(*identity)->uid, (*identity)->gid};
  if (auto opened = open_descriptors(owner); !opened) return opened;
  if (*identity) {
    if (auto dropped = drop_privileges(**identity); !dropped) return dropped;
    log_info("runs as another user from here on",
             {{"user", (*identity)->name}, {"uid", std::to_string((*identity)->uid)}});
  }
  if (auto started = start_workers(); !started) return started;
  std::vector<Worker*> workers;
  for (const auto& worker : workers_) workers.push_back(worker.get());
  if (peers_ != nullptr) {
    if (auto opened = open_rdma(); !opened) return opened;
    if (rdma_ != nullptr) {
      if (auto watched = watch(rdma_->epoll_fd(), kRdma); !watched) return watched;
      rdma_->start(workers);
    }
    if (auto watched = watch(peers_->epoll_fd(), kPeers); !watched) return watched;
    peers_->start(workers, rdma_.get());
  }
  attach_ = std::make_unique<AttachServer>(attach_listener_->fd(), epoll_.get(),
                                           attach_limits(config_.client), workers);
  if (rdma_ != nullptr) attach_->set_registrar(rdma_->registrar());

  auto http = HttpServer::create(control_listener_->fd(), routes());
  if (!http) return tl::unexpected(http.error());
  http_.emplace(std::move(*http));

  if (auto watched = watch_servers(); !watched) return watched;
  for (const auto& [fd, id] : {std::pair{signals_.get(), kSignals}, std::pair{waker_.fd(), kWakes},
                               std::pair{http_->epoll_fd(), kHttp}}) {
    if (auto watched = watch(fd, id); !watched) return watched;
  }
  if (auto started = attach_->start(kAttach); !started) return started;
  return start_sidecar();
}

Result<void> Daemon::open_descriptors(FileOwner owner) {
  auto run_dir = RunDir::claim(config_.daemon.run_dir, owner);
  if (!run_dir) return tl::unexpected(run_dir.error());
  run_dir_.emplace(std::move(*run_dir));

  UnixListenerOptions socket_options;
  socket_options.mode = config_.client.socket_mode;
  socket_options.group = config_.client.socket_group;
  socket_options.owner = owner;
  auto control = UnixListener::create(run_dir_->control_socket(), socket_options);
  if (!control) return tl::unexpected(control.error());
  control_listener_.emplace(std::move(*control));
  if (auto opened = open_sidecar_socket(socket_options); !opened) return opened;
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
  sigaddset(&signals, SIGHUP);
  signals_.reset(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!signals_) return system_error("cannot receive signals");
  return {};
}

Result<void> Daemon::start_workers() {
  for (std::size_t i = 0; i < config_.target.volume_servers.size(); ++i) {
    pulses_.push_back(std::make_shared<ServerPulse>());
  }
  try {
    for (std::uint32_t i = 0; i < worker_count(config_); ++i) {
      workers_.push_back(std::make_unique<Worker>(worker_options(config_, i, pulses_)));
    }
    Worker::introduce(workers_);
    if (auto started = start_gateway(); !started) return started;
    for (const auto& worker : workers_) {
      if (auto started = worker->start(waker_); !started) return started;
    }
  } catch (const std::system_error& error) {  // of std::thread
    return system_error(
        "cannot start the threads of a worker (RLIMIT_NPROC, or the pids.max of its cgroup)",
        error.code().value());
  }
  return {};
}

/// Before privileges are dropped: the key is for few to read.
Result<void> Daemon::read_gateway_options() {
  if (config_.gateway.masters.empty()) return {};
  auto options = gateway_options(config_);
  if (!options) return tl::unexpected(options.error());
  gateway_options_ = std::move(*options);
  return {};
}

Result<void> Daemon::open_peers() {
  const bool discovers = config_.peer.discover && !config_.gateway.masters.empty();
  if (config_.peer.listen.empty() && config_.peer.kelpds.empty() && !discovers) {
    return config_.rdma.listen.empty()
               ? Result<void>{}
               : plain_error(
                     "rdma.listen is of no use without peer.listen: gateways come there "
                     "first, and are told where RDMA connections are taken");
  }
  // Workers make theirs when the first connection comes, and can only end that.
  if (const auto uring = Uring::create(1); !uring) {
    tcp_obstacle_ = "no other kelpd can be spoken to by TCP: " + uring.error().what;
    log_warning(tcp_obstacle_);
  }
  auto options = peer_options(config_);
  if (!options) return tl::unexpected(options.error());
  auto by_rdma = rdma_options(config_);
  if (!by_rdma) return tl::unexpected(by_rdma.error());
  rdma_options_ = std::move(*by_rdma);
  auto opened = PeerConnections::create(std::move(*options), &waker_);
  if (!opened) return tl::unexpected(opened.error());
  peers_ = std::move(*opened);
  return {};
}

Result<void> Daemon::start_gateway() {
  if (!gateway_options_) return {};
  std::vector<RemoteLane*> lanes;
  for (const auto& worker : workers_) lanes.push_back(worker->remote_lane());
  if (peers_ != nullptr) gateway_options_->peers = &peers_->directory();
  auto started = Gateway::start(std::move(*gateway_options_), std::move(lanes));
  gateway_options_.reset();
  if (!started) return tl::unexpected(started.error());
  gateway_ = std::move(*started);
  return {};
}

/// As who we are from now on: a device that was opened before a change of credentials refuses every
/// post.
Result<void> Daemon::open_rdma() {
  const bool listens = !config_.rdma.listen.empty();
  if (!listens && (!config_.rdma.use || list_rdma_devices().devices.empty())) return {};
  if (const auto shortage = lock_shortage(locked_memory(config_), lock_limit_bytes())) {
    log_warning(*shortage, {{"remedy", kLockRemedy}});
  }
  auto opened = RdmaConnections::create(std::move(*rdma_options_));
  if (opened) {
    rdma_ = std::move(*opened);
    return {};
  }
  if (listens) {
    return tl::unexpected(Error{opened.error().os_error, "rdma.listen: " + opened.error().what});
  }
  log_warning("there is an RDMA device, and it cannot be used; kelpds are read by TCP",
              {{"reason", opened.error().what}});
  return {};
}

Result<void> Daemon::watch_servers() {
  std::vector<WatchedServer> servers;
  for (std::size_t i = 0; i < pulses_.size(); ++i) {
    const TargetVolumeServer& server = config_.target.volume_servers[i];
    servers.push_back({server.url, server.dirs.size(), pulses_[i]});
  }
  auto created = VolumeServerWatch::create(std::move(servers), [this](std::uint32_t server) {
    std::vector<std::shared_ptr<Attestation>> all;
    for (const auto& worker : workers_) {
      for (auto& each : worker->loader().catalog().attestations(server)) {
        all.push_back(std::move(each));
      }
    }
    return all;
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

/// This thread never takes a CPU from a worker or a client in the middle of a read: when it is
/// woken it waits for the CPU until whoever has it sleeps or has had its turn. Threads made from
/// here on would inherit that; there are none.
void Daemon::give_way_to_workers() {
  const sched_param nothing{};
  if (::sched_setscheduler(0, SCHED_BATCH, &nothing) == 0) return;
  log_warning("the control thread may take CPUs from workers",
              {{"error", std::generic_category().message(errno)}});
}

int Daemon::run() {
  give_way_to_workers();
  log_info("kelpd is ready", {{"run_dir", run_dir_->path()},
                              {"workers", std::to_string(workers_.size())},
                              {"volume_servers", std::to_string(pulses_.size())},
                              {"directories", std::to_string(config_.target.directories.size())}});
  service_.ready();
  while (!done_) {
    serve_once(next_timeout_ms());
    keep_house();
    if (drain_deadline_ && Clock::now() >= *drain_deadline_) {
      log_warning("requests were still in flight when the drain timeout passed");
      leave_at_once();
    }
  }
  log_info("kelpd stops");
  let_signals_end_us();
  return 0;
}

void Daemon::keep_house() {
  constexpr std::chrono::seconds kSuppressedPeriod{10};
  const Clock::time_point now = Clock::now();
  attach_->expire();
  if (rdma_ != nullptr) {
    // relaxed: words for the sidecar's /health.
    sidecar_facts_->verbs_possible.store(true, std::memory_order_relaxed);
    sidecar_facts_->verbs_connected.store(rdma_->reaches_target(), std::memory_order_relaxed);
  }
  std::vector<std::uint64_t> turns;
  for (const auto& worker : workers_) turns.push_back(worker->counters().polls.value());
  if (watch_.may_say_alive(now, turns)) service_.alive();
  if (!drain_deadline_) {
    service_.status((disabled_ ? "disabled, " : "") + std::to_string(attach_->clients()) +
                    " clients attached");
  }
  if (now - last_suppressed_ >= kSuppressedPeriod) {
    last_suppressed_ = now;
    log_suppressed();
  }
}

void Daemon::let_signals_end_us() {
  // From here on threads are joined, and one of them may wait for a dead disk. Nobody reads signals
  // any more; a second one ends the process.
  remove_sockets();
  ::signal(SIGTERM, [](int) { ::_exit(1); });
  ::signal(SIGINT, [](int) { ::_exit(1); });
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

void Daemon::remove_sockets() {
  attach_listener_.reset();
  control_listener_.reset();
  http_listener_.reset();
}

void Daemon::leave_at_once() {
  // A thread that waits for a dead disk cannot be joined. The kernel closes what is open; only the
  // socket files have to be taken away.
  remove_sockets();
  ::_exit(1);
}

int Daemon::next_timeout_ms() const {
  auto timeout = std::chrono::milliseconds(kHousekeepingMs);
  if (const auto period = watch_.period()) timeout = std::min(timeout, *period);
  if (const auto http = http_->timeout()) timeout = std::min(timeout, *http);
  if (const auto servers = servers_->timeout()) timeout = std::min(timeout, *servers);
  if (const auto peers = peers_ == nullptr ? std::nullopt : peers_->timeout()) {
    timeout = std::min(timeout, *peers);
  }
  if (const auto rdma = rdma_ == nullptr ? std::nullopt : rdma_->timeout()) {
    timeout = std::min(timeout, *rdma);
  }
  if (const auto deadline = sidecar_drain_deadline_ ? sidecar_drain_deadline_ : drain_deadline_) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(*deadline - Clock::now());
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
  if (peers_ != nullptr) peers_->run();
  if (rdma_ != nullptr) rdma_->run();
}

void Daemon::handle_event(std::uint64_t id) {
  switch (id) {
    case kSignals:
      take_signals();
      return;
    case kWakes:
    case kHttp:
    case kServers:
    case kPeers:
    case kRdma:
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
  keep_draining();
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

void Daemon::tell_workers(WorkerCommand::Kind kind) {
  for (auto& worker : workers_) {
    while (!worker->command({kind, nullptr})) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
}

}  // namespace kelp
