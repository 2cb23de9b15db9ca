#include "control/peers/rdma_connections.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <thread>

#include "control/log.h"
#include "control/log_limiter.h"
#include "control/peers/peer_directory.h"

namespace kelp {
namespace {

constexpr int kBacklog = 64;
constexpr std::chrono::milliseconds kStopLimit{1000};
constexpr std::chrono::milliseconds kShortestPause{100};
constexpr std::chrono::milliseconds kLongestPause{2000};
constexpr std::chrono::seconds kLasting{2};
/// Of the epoll set; those of connections are their ids, which are greater.
constexpr std::uint64_t kEvents = 1;
constexpr std::uint64_t kEndBell = 2;

}  // namespace

Result<std::unique_ptr<RdmaConnections>> RdmaConnections::create(RdmaOptions options) {
  std::unique_ptr<RdmaConnections> made(new RdmaConnections(std::move(options)));
  if (!made->epoll_ || !made->end_bell_) {
    return system_error("cannot make the epoll set of RDMA connections");
  }
  made->events_.reset(::rdma_create_event_channel());
  if (made->events_ == nullptr) {
    return system_error(
        "cannot open /dev/infiniband/rdma_cm (modprobe rdma_ucm; PrivateDevices= "
        "of the service)");
  }
  const int fd = made->events_->fd;
  ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  for (const auto& [descriptor, id] : {std::pair{fd, kEvents}, {made->end_bell_.get(), kEndBell}}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    ::epoll_ctl(made->epoll_.get(), EPOLL_CTL_ADD, descriptor, &event);
  }
  for (const ServerAddress& address : made->options_.listen) {
    if (auto listens = made->listen_at(address); !listens) return tl::unexpected(listens.error());
  }
  return made;
}

RdmaConnections::RdmaConnections(RdmaOptions options)
    : options_(std::move(options)),
      resources_(options_.domain_per_peer, options_.arena_bytes),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      end_bell_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

RdmaConnections::~RdmaConnections() {
  // Endpoints before their ids and domains. No worker is left.
  for (auto& [id, connection] : connections_) {
    connection.with_worker = false;
    end_queue_pair(connection);
  }
  connections_.clear();
  listeners_.clear();
}

Result<void> RdmaConnections::listen_at(const ServerAddress& address) {
  auto where = numeric_address(address);
  if (!where) {
    return plain_error(address.text() + " is not an IP address and a port");
  }
  if (!may_go_without_key(*where->get())) {
    return plain_error(address.text() +
                       " can be reached from other hosts, and there is no peer.keys_file (or say "
                       "peer.allow_unauthenticated = true)");
  }
  rdma_cm_id* made = nullptr;
  if (::rdma_create_id(events_.get(), &made, nullptr, RDMA_PS_TCP) != 0) {
    return system_error("cannot make an RDMA listener");
  }
  RdmaId id(made);
  if (::rdma_bind_addr(id.get(), where->get()) != 0 || ::rdma_listen(id.get(), kBacklog) != 0) {
    const int error = errno;
    const std::string hint = error == ENODEV || error == EADDRNOTAVAIL
                                 ? " (is there an RDMA device with this address? kelpctl devices)"
                                 : "";
    return system_error("cannot listen at " + address.text() + hint, error);
  }
  listeners_.push_back(std::move(id));
  return {};
}

bool RdmaConnections::may_go_without_key(const sockaddr& address) const {
  return !options_.keys.empty() || options_.allow_unauthenticated ||
         is_loopback(address_of(address));
}

void RdmaConnections::start(std::vector<Worker*> workers) {
  workers_ = std::move(workers);
}

void RdmaConnections::drain() {
  draining_ = true;
  listeners_.clear();
}

void RdmaConnections::stop() {
  drain();
  const auto held = [](const auto& each) {
    return each.second.with_worker && !each.second.endpoint->gone();
  };
  for (auto& [id, connection] : connections_) {
    if (!connection.with_worker) {
      end_queue_pair(connection);
    } else {
      connection.endpoint->set_hung_up();
      workers_[worker_of(connection)]->wake();
    }
  }
  // A worker that hangs, on a dead disk, may still post: its queue pairs end with the process.
  const Clock::time_point end = Clock::now() + kStopLimit;
  while (std::ranges::any_of(connections_, held) && Clock::now() < end) {
    take_ends();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

std::uint32_t RdmaConnections::worker_of(const Connection& connection) {
  return connection.is_gateway() ? connection.agreement.gateway_worker
                                 : connection.agreement.target_worker;
}

std::optional<std::chrono::milliseconds> RdmaConnections::timeout() const {
  std::optional<Clock::time_point> next;
  const auto sooner = [&](Clock::time_point when) { next = next ? std::min(*next, when) : when; };
  for (const auto& [id, connection] : connections_) {
    if (!connection.with_worker) sooner(connection.end);
  }
  for (const Dial& each : dials_) {
    if (each.wanted && each.connection == 0 && !draining_) sooner(each.next);
  }
  if (!next) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

void RdmaConnections::run() {
  std::array<epoll_event, 64> told;
  const int count = ::epoll_wait(epoll_.get(), told.data(), static_cast<int>(told.size()), 0);
  for (int i = 0; i < count; ++i) {
    const std::uint64_t id = told[static_cast<std::size_t>(i)].data.u64;
    if (id == kEvents) {
      while (take_event()) {
      }
    } else if (id == kEndBell) {
      eventfd_t rings = 0;
      ::eventfd_read(end_bell_.get(), &rings);
    } else {
      go_on(id);
    }
  }
  take_ends();
  const Clock::time_point now = Clock::now();
  std::vector<std::uint64_t> late;
  for (const auto& [id, connection] : connections_) {
    if (!connection.with_worker && connection.end <= now) late.push_back(id);
  }
  for (const std::uint64_t id : late) {
    const std::string failure = connections_.at(id).failure;
    fail(id, failure.empty() ? "it does not come to an agreement in time" : failure);
  }
  for (std::size_t which = 0; which < dials_.size() && !draining_; ++which) {
    const Dial& each = dials_[which];
    if (each.wanted && each.connection == 0 && each.next <= now) dial(which);
  }
}

/// What workers, and endpoints, want to be over.
void RdmaConnections::take_ends() {
  std::vector<std::uint64_t> failed;
  for (auto& [id, connection] : connections_) {
    if (connection.endpoint == nullptr || !connection.endpoint->end_asked() ||
        connection.endpoint->gone()) {
      continue;
    }
    if (connection.with_worker) {
      end_queue_pair(connection);
    } else {
      failed.push_back(id);
    }
  }
  for (const std::uint64_t id : failed) {
    const Connection& connection = connections_.at(id);
    fail(id, connection.failure.empty() ? connection.endpoint->why_broken() : connection.failure);
  }
}

/// From here on nothing lands in our memory, and nothing is read from it.
void RdmaConnections::end_queue_pair(Connection& connection) {
  if (connection.endpoint == nullptr || connection.endpoint->gone()) return;
  if (connection.established) ::rdma_disconnect(connection.id.get());
  ::rdma_destroy_qp(connection.id.get());
  connection.endpoint->set_gone();
  if (!connection.with_worker) return;
  workers_[worker_of(connection)]->wake();
}

void RdmaConnections::log_refused(const std::string& peer, const std::string& why) {
  static LogLimiter limiter("a peer was refused an RDMA connection");
  if (limiter.allow()) {
    log_info("a peer was refused an RDMA connection", {{"peer", peer}, {"reason", why}});
  }
}

void RdmaConnections::fail(std::uint64_t id, const std::string& why) {
  auto node = connections_.extract(id);
  Connection& connection = node.mapped();
  end_queue_pair(connection);
  if (connection.is_gateway()) return dial_failed(connection.dial, why);
  ++counters_.refused;
  log_refused(connection.address, why);
}

void RdmaConnections::dial_failed(std::size_t which, std::string why) {
  Dial& wanted = dials_[which];
  ++counters_.failed;
  if (wanted.failures == 0) {
    log_warning("no RDMA connection to a kelpd; it is read by TCP",
                {{"peer", address_of(*wanted.where.get()).text()}, {"reason", why}});
  }
  const Clock::duration pause = kShortestPause * (1 << std::min(wanted.failures++, 8U));
  wanted.next = Clock::now() + std::min<Clock::duration>(pause, kLongestPause);
  wanted.connection = 0;
  wanted.error = std::move(why);
}

void RdmaConnections::ended(const LinkEnded& ended) {
  const auto found = connections_.find(ended.id);
  if (found == connections_.end()) return;
  Connection connection = std::move(found->second);
  connections_.erase(found);
  connection.with_worker = false;
  end_queue_pair(connection);
  if (!connection.is_gateway()) {
    static LogLimiter limiter("a gateway's RDMA connection has ended");
    if (limiter.allow()) {
      log_info("a gateway's RDMA connection has ended", {{"peer", connection.address}});
    }
    return;
  }
  Dial& wanted = dials_[connection.dial];
  if (Clock::now() - wanted.up_since >= kLasting) wanted.failures = 0;
  dial_failed(connection.dial, "the connection ended");
}

bool RdmaConnections::reaches_target() const {
  return std::ranges::any_of(connections_, [](const auto& each) {
    return each.second.with_worker && each.second.is_gateway();
  });
}

std::vector<PeerReport> RdmaConnections::reports() const {
  std::vector<PeerReport> reports;
  for (const Dial& each : dials_) {
    PeerReport& report = reports.emplace_back();
    report.address = address_of(*each.where.get()).text();
    report.target = true;
    report.worker = each.worker;
    report.target_worker = each.target_worker;
    report.state = each.connection != 0 ? "connecting" : each.wanted ? "waiting" : "absent";
    report.error = each.error;
    report.traffic = each.traffic;
    report.path = KELP_PATH_VERBS;
    const auto found = connections_.find(each.connection);
    if (found == connections_.end() || !found->second.with_worker) continue;
    report.state = "up";
    report.key_id = found->second.agreement.key_id;
    report.slots = found->second.agreement.slots;
    report.adapter = found->second.endpoint->counters();
    report.rdma = found->second.path;
  }
  for (const auto& [id, connection] : connections_) {
    if (connection.is_gateway() || !connection.with_worker) continue;
    PeerReport& report = reports.emplace_back();
    report.address = connection.address;
    report.node = connection.agreement.node;
    report.target_worker = connection.agreement.target_worker;
    report.state = "up";
    report.key_id = connection.agreement.key_id;
    report.slots = connection.agreement.slots;
    report.traffic = connection.traffic;
    report.path = KELP_PATH_VERBS;
    report.adapter = connection.endpoint->counters();
    report.rdma = connection.path;
  }
  return reports;
}

}  // namespace kelp
