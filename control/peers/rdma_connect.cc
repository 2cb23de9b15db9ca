// How a connection comes about: greetings by the connection manager, the queue pair, the handshake
// through it, and the hand-over to a worker.
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "control/log.h"
#include "control/log_limiter.h"
#include "control/peers/rdma_connections.h"

namespace kelp {
namespace {

constexpr std::size_t kMostHalfOpen = 64;
constexpr std::size_t kMostConnections = 1024;
constexpr std::uint16_t kSlots = 64;
constexpr std::chrono::milliseconds kResolveLimit{2000};
/// A refusal is on its way for so long, before its connection ends.
constexpr std::chrono::milliseconds kRefusalTime{100};
constexpr std::uint8_t kRnrRetries = 6;
constexpr std::uint8_t kMinRnrTimer = 12;  // 0.64 ms

void* as_context(std::uint64_t id) {
  return reinterpret_cast<void*>(id);
}

std::string error_text(int error) {
  return std::generic_category().message(error);
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

// ---- the connection manager

bool RdmaConnections::take_event() {
  rdma_cm_event* event = nullptr;
  if (::rdma_get_cm_event(events_.get(), &event) != 0) return false;
  if (event->event == RDMA_CM_EVENT_CONNECT_REQUEST) {
    RdmaId id(event->id);
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
      failure = rdma_reason(copy);
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
      established(id);
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
void RdmaConnections::asked(RdmaId id, std::span<const std::byte> private_data) {
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
  if (const std::string obstacle = rdma_obstacle(*id); !obstacle.empty()) {
    return refuse(id.get(), wire::RefusalCode::kProtocol, obstacle);
  }
  wire::TargetTerms terms;
  terms.workers = static_cast<std::uint16_t>(workers_.size());
  terms.slots = std::min(hello.slots, kSlots);
  terms.nonce = *nonce;
  const std::uint64_t number = ++last_id_;
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
  const std::uint64_t number = ++last_id_;
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
  if (std::string obstacle = rdma_obstacle(*connection.id); !obstacle.empty()) {
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
  ibv_context* const device = id->verbs;
  auto domain = connection.is_gateway()
                    ? resources_.gateway_domain(device, dials_[connection.dial].peer)
                    : resources_.target_domain(device);
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

void RdmaConnections::established(std::uint64_t id) {
  Connection& connection = connections_.at(id);
  connection.established = true;
  connection.path = rdma_path(*connection.id);
  if (const std::string obstacle = rdma_path_obstacle(connection.path); !obstacle.empty()) {
    return fail(id, obstacle);
  }
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
    auto arena = resources_.arena(connection.id->verbs, worker);
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
              {"device", connection.path.device},
              {"gid", connection.path.gid},
              {"gid_type", connection.path.gid_type},
              {"mtu_bytes", std::to_string(connection.path.mtu_bytes)}});
  }
  if (!connection.is_gateway()) return;
  ++counters_.connected;
  Dial& wanted = dials_[connection.dial];
  wanted.up_since = Clock::now();
  wanted.error.clear();
}

}  // namespace kelp
