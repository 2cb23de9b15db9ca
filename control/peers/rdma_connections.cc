#include "control/peers/rdma_connections.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>
#include <thread>

#include "control/log.h"
#include "control/log_limiter.h"
#include "control/peers/peer_directory.h"

namespace kelp {
namespace {

constexpr std::size_t kMostHalfOpen = 64;
constexpr std::size_t kMostConnections = 1024;
constexpr std::uint16_t kSlots = 64;
constexpr int kBacklog = 64;
constexpr std::chrono::milliseconds kResolveLimit{2000};
/// A refusal is on its way for so long, before its connection ends.
constexpr std::chrono::milliseconds kRefusalTime{100};
constexpr std::chrono::milliseconds kStopLimit{1000};
constexpr std::chrono::milliseconds kShortestPause{100};
constexpr std::chrono::milliseconds kLongestPause{2000};
constexpr std::chrono::seconds kLasting{2};
constexpr std::uint8_t kRnrRetries = 6;
constexpr std::uint8_t kMinRnrTimer = 12;  // 0.64 ms
/// Of the epoll set; connections come behind.
constexpr std::uint64_t kEvents = 1;
constexpr std::uint64_t kEndBell = 2;
constexpr std::uint64_t kFirstConnection = 16;

template <class Frame>
std::span<const std::byte> bytes_of(const Frame& frame) {
  return std::as_bytes(std::span(&frame, 1));
}

void* as_context(std::uint64_t id) {
  return reinterpret_cast<void*>(id);
}

std::string error_text(int error) {
  return std::generic_category().message(error);
}

void log_refused(const std::string& peer, const std::string& why) {
  static LogLimiter limiter("a peer was refused an RDMA connection");
  if (limiter.allow()) {
    log_info("a peer was refused an RDMA connection", {{"peer", peer}, {"reason", why}});
  }
}

/// Why attempts fail, from an event's status: -errno of resolving, or the CM's reason of a refusal.
std::string reason_of(const rdma_cm_event& event) {
  constexpr int kInvalidService = 8;
  constexpr int kStale = 10;
  constexpr int kConsumerDefined = 28;
  if (event.event != RDMA_CM_EVENT_REJECTED) {
    return std::string(::rdma_event_str(event.event)) +
           (event.status < 0 ? ": " + error_text(-event.status) : "");
  }
  if (event.status == kInvalidService) return "nobody listens there";
  if (event.status == kStale) {
    return "the peer still has a connection of before; it is over in a few seconds";
  }
  wire::RdmaRefusal refusal;
  if (event.status == kConsumerDefined && event.param.conn.private_data != nullptr &&
      event.param.conn.private_data_len >= sizeof refusal) {
    std::memcpy(&refusal, event.param.conn.private_data, sizeof refusal);
    if (refusal.magic == wire::kRdmaMagic) {
      return "the peer refuses: " + wire::printable(refusal.message);
    }
  }
  return "the peer refuses (reason " + std::to_string(event.status) + ")";
}

/// What travels by anything but RoCE v2 or InfiniBand does not leave its segment.
std::string obstacle_of(const rdma_cm_id& id) {
  ibv_port_attr port{};
  if (::ibv_query_port(id.verbs, id.port_num, &port) != 0) return "its port cannot be asked";
  if (port.link_layer != IBV_LINK_LAYER_ETHERNET) return "";
  std::array<ibv_gid_entry, 256> entries;
  const ssize_t count = ::ibv_query_gid_table(id.verbs, entries.data(), entries.size(), 0);
  const ibv_gid& ours = id.route.addr.addr.ibaddr.sgid;
  for (ssize_t i = 0; i < count; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<std::size_t>(i)];
    if (entry.port_num == id.port_num && entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
        std::memcmp(&entry.gid, &ours, sizeof ours) == 0) {
      return "";
    }
  }
  return "its address is not one of RoCE v2";
}

/// Of the path, as both ends agreed upon it; 0: unknown.
std::uint32_t mtu_bytes(rdma_cm_id& id) {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr init{};
  if (::ibv_query_qp(id.qp, &attributes, IBV_QP_PATH_MTU, &init) != 0) return 0;
  return 128U << attributes.path_mtu;
}

}  // namespace

/// What a connection's endpoint hears before a worker has it.
class RdmaConnections::Ear final : public VerbsEndpoint::User {
 public:
  explicit Ear(wire::Handshake& handshake) : handshake_(handshake) {}
  bool arrived(const VerbsEndpoint::Arrival& arrival) override {
    // What comes behind the last frame, a gateway's link hears of again, or can do without.
    if (handshake_.state() != wire::Handshake::State::kUnderWay) return true;
    if (arrival.immediate) return false;
    handshake_.feed(arrival.frame);
    return true;
  }

 private:
  wire::Handshake& handshake_;
};

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
    return plain_error("rdma.listen: " + address.text() + " is not an IP address and a port");
  }
  if (!may_go_without_key(*where->get())) {
    return plain_error("rdma.listen: " + address.text() +
                       " can be reached from other hosts, and there is no peer.keys_file (or say "
                       "peer.allow_unauthenticated = true)");
  }
  rdma_cm_id* made = nullptr;
  if (::rdma_create_id(events_.get(), &made, nullptr, RDMA_PS_TCP) != 0) {
    return system_error("cannot make an RDMA listener");
  }
  Id id(made);
  if (::rdma_bind_addr(id.get(), where->get()) != 0 || ::rdma_listen(id.get(), kBacklog) != 0) {
    const int error = errno;
    const std::string hint = error == ENODEV || error == EADDRNOTAVAIL
                                 ? " (is there an RDMA device with this address? kelpctl devices)"
                                 : "";
    return system_error("rdma.listen: cannot listen at " + address.text() + hint, error);
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

// ---- the connection manager

bool RdmaConnections::take_event() {
  rdma_cm_event* event = nullptr;
  if (::rdma_get_cm_event(events_.get(), &event) != 0) return false;
  if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
    Id id(event->id);
    const auto* const data = static_cast<const std::byte*>(event->param.conn.private_data);
    const std::vector<std::byte> private_data(
        data, data + (data == nullptr ? 0 : event->param.conn.private_data_len));
    ::rdma_ack_cm_event(event);  // before the id may go
    asked(std::move(id), private_data);
    return true;
  }
  const rdma_cm_event copy = *event;
  const auto id = reinterpret_cast<std::uint64_t>(event->id->context);
  std::string failure;
  switch (copy.event) {
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_CONNECT_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_REJECTED:
      failure = reason_of(copy);
      break;
    default:
      break;
  }
  ::rdma_ack_cm_event(event);
  if (!connections_.contains(id)) return true;
  if (failure.empty()) {
    heard(id, copy);
  } else {
    fail(id, failure);
  }
  return true;
}

void RdmaConnections::heard(std::uint64_t id, const rdma_cm_event& event) {
  Connection& connection = connections_.at(id);
  switch (event.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      if (::rdma_resolve_route(connection.id.get(), static_cast<int>(kResolveLimit.count())) != 0) {
        fail(id, "its route cannot be resolved: " + error_text(errno));
      }
      return;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      if (auto begun = connect(connection); !begun) fail(id, begun.error().what);
      return;
    case RDMA_CM_EVENT_ESTABLISHED:
      established(connection);
      return;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      if (!connection.with_worker) {
        return fail(id,
                    connection.failure.empty() ? "it closes the connection" : connection.failure);
      }
      connection.endpoint->set_hung_up();
      workers_[worker_of(connection)]->wake();
      return;
    default:
      return;
  }
}

void RdmaConnections::refuse(rdma_cm_id* id, wire::RefusalCode code, const std::string& why) {
  ++counters_.refused;
  log_refused(address_of(*::rdma_get_peer_addr(id)).text(), why);
  wire::RdmaRefusal refusal;
  refusal.code = code;
  std::copy_n(why.begin(), std::min(why.size(), refusal.message.size() - 1),
              refusal.message.begin());
  ::rdma_reject(id, &refusal, sizeof refusal);
}

/// A gateway wants to connect. Nothing it says is believed before the handshake.
void RdmaConnections::asked(Id id, std::span<const std::byte> private_data) {
  ++counters_.accepted;
  wire::RdmaHello hello;
  if (private_data.size() < sizeof hello) {
    return refuse(id.get(), wire::RefusalCode::kProtocol, "this is not the greeting of a gateway");
  }
  std::memcpy(&hello, private_data.data(), sizeof hello);
  if (hello.magic != wire::kRdmaMagic || hello.slots == 0) {
    return refuse(id.get(), wire::RefusalCode::kProtocol, "this is not the greeting of a gateway");
  }
  if (hello.min_version > wire::kNewestVersion || hello.max_version < wire::kOldestVersion) {
    return refuse(id.get(), wire::RefusalCode::kVersion,
                  "this kelpd speaks versions " + std::to_string(wire::kOldestVersion) + " to " +
                      std::to_string(wire::kNewestVersion));
  }
  const auto strangers = std::ranges::count_if(connections_, [](const auto& each) {
    return each.second.target != nullptr && !each.second.with_worker;
  });
  if (draining_ || static_cast<std::size_t>(strangers) >= kMostHalfOpen ||
      connections_.size() >= kMostConnections) {
    return refuse(id.get(), wire::RefusalCode::kFull, "there is no place for another connection");
  }
  const ServerAddress peer = address_of(*::rdma_get_peer_addr(id.get()));
  const auto nonce = wire::fresh_nonce();
  if (!nonce || !may_go_without_key(*::rdma_get_peer_addr(id.get()))) {
    return refuse(id.get(), wire::RefusalCode::kKey, "there is no key for other hosts");
  }
  if (const std::string obstacle = obstacle_of(*id); !obstacle.empty()) {
    return refuse(id.get(), wire::RefusalCode::kProtocol, obstacle);
  }
  wire::TargetTerms terms;
  terms.workers = static_cast<std::uint16_t>(workers_.size());
  terms.slots = std::min(hello.slots, kSlots);
  terms.nonce = *nonce;
  const std::uint64_t number = kFirstConnection + ++last_id_;
  Connection connection;
  connection.id = std::move(id);
  connection.target = std::make_unique<wire::TargetHandshake>(terms, options_.keys);
  connection.address = peer.text();
  connection.end = Clock::now() + wire::kHandshakeLimit;
  connection.id->context = as_context(number);
  if (auto made = make_endpoint(connection, terms.slots); !made) {
    return refuse(connection.id.get(), wire::RefusalCode::kFull, made.error().what);
  }
  rdma_conn_param parameters{};
  parameters.retry_count = options_.retries;
  parameters.rnr_retry_count = kRnrRetries;
  if (::rdma_accept(connection.id.get(), &parameters) != 0) {
    const int error = errno;
    ++counters_.refused;
    ::rdma_destroy_qp(connection.id.get());
    return log_refused(peer.text(), "it cannot be accepted: " + error_text(error));
  }
  Connection& kept = connections_.emplace(number, std::move(connection)).first->second;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = number;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, kept.endpoint->channel_fd(), &event);
}

// ---- targets

void RdmaConnections::want(PeerIndex peer, std::uint32_t worker, std::uint16_t target_worker,
                           SocketAddress where) {
  const auto same = std::ranges::find_if(dials_, [&](const Dial& each) {
    return each.peer == peer && each.worker == worker && each.target_worker == target_worker;
  });
  if (!options_.dials) return;
  Dial& dial = same != dials_.end() ? *same : dials_.emplace_back();
  if (dial.wanted) return;
  dial.peer = peer;
  dial.worker = worker;
  dial.target_worker = target_worker;
  dial.where = where;
  dial.wanted = true;
  dial.next = Clock::now();
}

void RdmaConnections::forget(PeerIndex peer, std::uint32_t worker, std::uint16_t target_worker) {
  for (Dial& each : dials_) {
    if (each.peer == peer && each.worker == worker && each.target_worker == target_worker) {
      each.wanted = false;
    }
  }
}

void RdmaConnections::dial(std::size_t which) {
  Dial& wanted = dials_[which];
  const std::string address = address_of(*wanted.where.get()).text();
  if (!may_go_without_key(*wanted.where.get())) {
    return dial_failed(which, "it is on another host, and there is no peer.keys_file");
  }
  const std::uint64_t number = kFirstConnection + ++last_id_;
  rdma_cm_id* made = nullptr;
  if (::rdma_create_id(events_.get(), &made, as_context(number), RDMA_PS_TCP) != 0) {
    return dial_failed(which, error_text(errno));
  }
  Connection connection;
  connection.id.reset(made);
  SocketAddress source = options_.source.value_or(SocketAddress{});
  if (::rdma_resolve_addr(made, options_.source ? source.get() : nullptr, wanted.where.get(),
                          static_cast<int>(kResolveLimit.count())) != 0) {
    return dial_failed(which, "no RDMA device reaches it: " + error_text(errno));
  }
  const auto nonce = wire::fresh_nonce();
  if (!nonce) return dial_failed(which, nonce.error().what);
  wire::GatewayOffer offer;
  offer.node = options_.node;
  offer.worker = static_cast<std::uint16_t>(wanted.worker);
  offer.target_worker = wanted.target_worker;
  offer.slots = kSlots;
  offer.nonce = *nonce;
  connection.gateway = std::make_unique<wire::GatewayHandshake>(offer, options_.keys);
  connection.dial = which;
  connection.address = address;
  connection.end = Clock::now() + 2 * kResolveLimit + wire::kHandshakeLimit;
  wanted.connection = number;
  connections_.emplace(number, std::move(connection));
}

Result<void> RdmaConnections::connect(Connection& connection) {
  if (std::string obstacle = obstacle_of(*connection.id); !obstacle.empty()) {
    return plain_error(std::move(obstacle));
  }
  if (auto made = make_endpoint(connection, kSlots); !made) return made;
  const Dial& wanted = dials_[connection.dial];
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = wanted.connection;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection.endpoint->channel_fd(), &event);
  wire::RdmaHello hello;
  hello.gateway_worker = static_cast<std::uint16_t>(wanted.worker);
  hello.target_worker = wanted.target_worker;
  hello.slots = kSlots;
  rdma_conn_param parameters{};
  parameters.private_data = &hello;
  parameters.private_data_len = sizeof hello;
  parameters.retry_count = options_.retries;
  parameters.rnr_retry_count = kRnrRetries;
  if (::rdma_connect(connection.id.get(), &parameters) != 0) {
    return system_error("it cannot be connected to");
  }
  return {};
}

// ---- both

Result<void> RdmaConnections::make_endpoint(Connection& connection, std::uint16_t slots) {
  rdma_cm_id* const id = connection.id.get();
  std::uint8_t timeout = options_.ack_timeout;
  ::rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout, sizeof timeout);
  std::uint8_t traffic_class = options_.traffic_class;
  if (traffic_class != 0) {
    ::rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_TOS, &traffic_class, sizeof traffic_class);
  }
  auto domain = domain_of(connection);
  if (!domain) return tl::unexpected(domain.error());
  VerbsEndpoint::Options options;
  options.role =
      connection.is_gateway() ? VerbsEndpoint::Role::kGateway : VerbsEndpoint::Role::kTarget;
  options.slots = slots;
  options.mlx5 = options_.mlx5;
  options.end_bell = end_bell_.get();
  auto endpoint = VerbsEndpoint::create(id, *domain, options);
  if (!endpoint) return tl::unexpected(endpoint.error());
  connection.endpoint = std::move(*endpoint);
  return {};
}

Result<std::shared_ptr<RdmaDomain>> RdmaConnections::domain_of(const Connection& connection) {
  ibv_context* const device = connection.id->verbs;
  if (!connection.is_gateway()) {
    std::shared_ptr<RdmaDomain>& domain = target_domains_[device];
    if (domain != nullptr) return domain;
    auto made = RdmaDomain::create(device, 0);
    if (made) domain = *made;
    return made;
  }
  const PeerIndex peer = options_.domain_per_peer ? dials_[connection.dial].peer : 0;
  std::shared_ptr<RdmaDomain>& domain = gateway_domains_[{device, peer}];
  if (domain != nullptr) return domain;
  auto made = regions_.add_domain(device);
  if (made) domain = *made;
  return made;
}

Result<std::shared_ptr<RegisteredArena>> RdmaConnections::arena_of(ibv_context* device,
                                                                   std::uint32_t worker) {
  std::shared_ptr<RegisteredArena>& arena = arenas_[{device, worker}];
  if (arena != nullptr) return arena;
  auto made = std::make_shared<RegisteredArena>(options_.arena_bytes);
  auto region =
      RegisteredMemory::create(target_domains_[device], made->pages.bytes(), Reach::kLocal);
  if (!region) return tl::unexpected(region.error());
  made->region = std::move(*region);
  arena = std::move(made);
  return arena;
}

void RdmaConnections::established(Connection& connection) {
  connection.established = true;
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTS;
  attributes.min_rnr_timer = kMinRnrTimer;
  ::ibv_modify_qp(connection.id->qp, &attributes, IBV_QP_STATE | IBV_QP_MIN_RNR_TIMER);
  connection.end = Clock::now() + wire::kHandshakeLimit;
  send_output(connection);
}

/// Frame by frame, each a message.
void RdmaConnections::send_output(Connection& connection) {
  if (!connection.established) return;
  const std::vector<std::byte> output = connection.handshake().take_output();
  std::span<const std::byte> left(output);
  while (!left.empty()) {
    const std::size_t bytes = wire::copy_frame<wire::FrameHeader>(left).bytes;
    connection.endpoint->post_frame(left.first(bytes));
    left = left.subspan(bytes);
  }
  connection.endpoint->flush();
}

void RdmaConnections::go_on(std::uint64_t id) {
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = found->second;
  if (connection.endpoint == nullptr || connection.endpoint->gone()) return;
  Ear ear(connection.handshake());
  connection.endpoint->arm();
  while (connection.endpoint->poll(ear) > 0) {
  }
  send_output(connection);
  switch (connection.handshake().state()) {
    case wire::Handshake::State::kUnderWay:
      return;
    case wire::Handshake::State::kFailed:
      if (!connection.failure.empty()) return;
      connection.failure = connection.handshake().failure();
      connection.end = Clock::now() + kRefusalTime;
      return;
    case wire::Handshake::State::kDone:
      // A target may hear of the end of the handshake before the event that says it can send.
      if (connection.established) agreed(id);
      return;
  }
}

void RdmaConnections::agreed(std::uint64_t id) {
  Connection& connection = connections_.at(id);
  connection.agreement = connection.handshake().agreement();
  const wire::Agreement& agreement = connection.agreement;
  auto link = std::make_unique<NewLink>();
  link->agreement = agreement;
  link->id = id;
  link->endpoint = connection.endpoint;
  std::uint32_t worker = agreement.target_worker;
  if (connection.is_gateway()) {
    Dial& wanted = dials_[connection.dial];
    if (wanted.traffic == nullptr) wanted.traffic = std::make_shared<LinkCounters>();
    connection.traffic = wanted.traffic;
    link->role = NewLink::Role::kGateway;
    link->peer = wanted.peer;
    worker = wanted.worker;
  } else {
    connection.traffic = std::make_shared<LinkCounters>();
    auto arena = arena_of(connection.id->verbs, worker);
    if (!arena) return fail(id, arena.error().what);
    link->arena = std::move(*arena);
  }
  link->counters = connection.traffic;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, connection.endpoint->channel_fd(), nullptr);
  if (!workers_[worker]->add_link(std::move(link))) {
    return fail(id, "the worker has too many connections");
  }
  connection.with_worker = true;
  static LogLimiter limiter("an RDMA connection is up");
  if (limiter.allow()) {
    log_info("an RDMA connection is up",
             {{"peer", connection.address},
              {"role", connection.is_gateway() ? "target" : "gateway"},
              {"device", ::ibv_get_device_name(connection.id->verbs->device)},
              {"mtu_bytes", std::to_string(mtu_bytes(*connection.id))}});
  }
  if (!connection.is_gateway()) return;
  ++counters_.connected;
  Dial& wanted = dials_[connection.dial];
  wanted.up_since = Clock::now();
  wanted.error.clear();
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
  }
  return reports;
}

}  // namespace kelp
