#include "control/peers/peer_connections.h"

#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

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
constexpr std::size_t kMostLinksOfOneWorker = 256;
constexpr std::uint16_t kSlots = 64;
constexpr std::chrono::milliseconds kShortestPause{100};
constexpr std::chrono::milliseconds kLongestPause{2000};
constexpr std::chrono::seconds kLasting{2};
/// Until a kelpd that is guessed and was not there, or one that has long been gone, is looked for
/// again.
constexpr std::chrono::seconds kAbsentPause{60};
constexpr std::uint32_t kLongGone = 60;  // failures in a row
/// Without a descriptor for the next connection the listeners are not looked at for so long.
constexpr std::chrono::milliseconds kListenersPause{100};
/// Ids of listeners in the epoll set are their index; talks come behind.
constexpr std::uint64_t kFirstTalk = 1024;
constexpr std::uint64_t kNames = kFirstTalk - 1;

void tune(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  // A host that has gone says nothing: it is found out within about 20 s.
  const int idle_s = 10;
  const int every_s = 5;
  const int probes = 2;
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &every_s, sizeof every_s);
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

constexpr const char* kNeedsKey =
    " is on another host, and there is no peer.keys_file (or say peer.allow_unauthenticated = "
    "true)";

std::string error_text(int error) {
  return std::generic_category().message(error);
}

/// accept() would say so again at once: the listener stays readable.
bool has_no_room(int error) {
  return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

void log_refused(const std::string& peer, const std::string& why) {
  static LogLimiter limiter("a peer was refused");
  if (limiter.allow()) log_info("a peer was refused", {{"peer", peer}, {"reason", why}});
}

}  // namespace

Result<std::unique_ptr<PeerConnections>> PeerConnections::create(PeerOptions options,
                                                                 Waker* control) {
  std::unique_ptr<PeerConnections> made(new PeerConnections(std::move(options), control));
  if (!made->epoll_) return system_error("cannot make the epoll set of peers");
  for (const ServerAddress& address : made->options_.listen) {
    if (auto listens = made->listen_at(address); !listens) return tl::unexpected(listens.error());
  }
  for (const KnownPeer& peer : made->options_.kelpds) {
    // Of a name it is known once its address is.
    if (numeric_address(peer.kelpd) && !made->may_go_without_key(peer.kelpd)) {
      return plain_error("peer.kelpds: " + peer.kelpd.text() + kNeedsKey);
    }
  }
  return made;
}

PeerConnections::PeerConnections(PeerOptions options, Waker* control)
    : options_(std::move(options)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      directory_(options_.kelpds,
                 {options_.discover, options_.keys.empty() && !options_.allow_unauthenticated,
                  options_.listen},
                 control) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kNames;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, names_.fd(), &event);
}

PeerConnections::~PeerConnections() = default;

bool PeerConnections::may_go_without_key(const ServerAddress& address) const {
  return !options_.keys.empty() || options_.allow_unauthenticated || is_loopback(address);
}

Result<void> PeerConnections::listen_at(const ServerAddress& address) {
  const auto wrong = [&](int error) {
    return system_error("peer.listen: cannot listen at " + address.text(), error);
  };
  const auto where = numeric_address(address);
  if (!where)
    return plain_error("peer.listen: " + address.text() + " is not an IP address and a port");
  if (!may_go_without_key(address)) {
    return plain_error("peer.listen: " + address.text() +
                       " can be reached from other hosts, and there is no peer.keys_file (or say "
                       "peer.allow_unauthenticated = true)");
  }
  UniqueFd socket(
      ::socket(where->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (!socket) return wrong(errno);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (where->storage.ss_family == AF_INET6) {
    ::setsockopt(socket.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = listeners_.size();
  if (::bind(socket.get(), where->get(), where->length) != 0 || ::listen(socket.get(), 128) != 0 ||
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, socket.get(), &event) != 0) {
    return wrong(errno);
  }
  listeners_.push_back(std::move(socket));
  return {};
}

void PeerConnections::start(std::vector<Worker*> workers, RdmaConnections* rdma) {
  workers_ = std::move(workers);
  rdma_ = rdma;
  run();
}

void PeerConnections::meet_new_peers() {
  for (KnownPeer& peer : directory_.from(known_.size())) {
    const auto index = static_cast<PeerIndex>(known_.size());
    known_.push_back(std::move(peer));
    for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
      dials_.push_back({.peer = index, .worker = worker, .error = {}, .traffic = {}});
    }
  }
}

void PeerConnections::stop() {
  stopped_ = true;
  listeners_.clear();
  talks_.clear();
}

std::optional<std::chrono::milliseconds> PeerConnections::timeout() const {
  if (stopped_) return std::nullopt;
  std::optional<Clock::time_point> next;
  const auto sooner = [&](Clock::time_point when) { next = next ? std::min(*next, when) : when; };
  if (listeners_pause_end_) sooner(*listeners_pause_end_);
  for (const auto& [id, talk] : talks_) sooner(talk.end);
  for (const Dial& each : dials_) {
    if (each.state == Dial::State::kWaiting) sooner(each.next);
  }
  if (!next) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

void PeerConnections::run() {
  if (stopped_) return;
  take_ended();
  meet_new_peers();
  std::array<epoll_event, 64> events;
  const int count = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    if (event.data.u64 == kNames) {
      take_names();
    } else if (event.data.u64 < kFirstTalk) {
      accept_from(listeners_[event.data.u64].get());
    } else {
      go_on(event.data.u64, event.events);
    }
  }
  const Clock::time_point now = Clock::now();
  if (listeners_pause_end_ && *listeners_pause_end_ <= now) pause_listeners(false);
  std::vector<std::uint64_t> late;
  for (const auto& [id, talk] : talks_) {
    if (talk.end <= now) late.push_back(id);
  }
  for (const std::uint64_t id : late) failed(id, "it does not come to an agreement in time");
  for (std::size_t which = 0; which < dials_.size(); ++which) {
    const Dial& each = dials_[which];
    if (each.state == Dial::State::kWaiting && each.next <= now) dial(which);
  }
}

/// Of strangers only so many are listened to; the oldest has had its chance.
void PeerConnections::accept_from(int listener) {
  for (int accepts = 0; accepts < 64; ++accepts) {
    sockaddr_storage storage{};
    socklen_t length = sizeof storage;
    UniqueFd socket(::accept4(listener, reinterpret_cast<sockaddr*>(&storage), &length,
                              SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket && has_no_room(errno)) {
      if (let_go_of_oldest_stranger()) continue;
      return pause_listeners(true);
    }
    if (!socket) return;
    ++counters_.accepted;
    const ServerAddress address = address_of(reinterpret_cast<const sockaddr&>(storage));
    const auto nonce = wire::fresh_nonce();
    if (!nonce || !may_go_without_key(address)) {
      ++counters_.refused;
      continue;
    }
    const auto strangers = std::ranges::count_if(
        talks_, [](const auto& each) { return each.second.target != nullptr; });
    if (static_cast<std::size_t>(strangers) >= kMostHalfOpen) let_go_of_oldest_stranger();
    tune(socket.get());
    wire::TargetTerms terms;
    terms.workers = static_cast<std::uint16_t>(workers_.size());
    terms.slots = kSlots;
    terms.nonce = *nonce;
    terms.rdma_port = options_.rdma_port;
    terms.rdma_address = options_.rdma_address;
    const std::uint64_t id = kFirstTalk + ++last_id_;
    Talk& talk = talks_[id];
    talk.socket = std::move(socket);
    talk.target = std::make_unique<wire::TargetHandshake>(terms, options_.keys);
    talk.connected = true;
    talk.address = address.text();
    talk.end = Clock::now() + wire::kHandshakeLimit;
    watch(id, true);
  }
}

/// False: there is none.
bool PeerConnections::let_go_of_oldest_stranger() {
  const auto oldest =
      std::ranges::find_if(talks_, [](const auto& each) { return each.second.target != nullptr; });
  if (oldest == talks_.end()) return false;
  failed(oldest->first, "others come after it");
  return true;
}

void PeerConnections::pause_listeners(bool pause) {
  listeners_pause_end_.reset();
  if (pause) listeners_pause_end_ = Clock::now() + kListenersPause;
  for (std::size_t index = 0; index < listeners_.size(); ++index) {
    epoll_event event{};
    event.events = pause ? 0U : EPOLLIN;
    event.data.u64 = index;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listeners_[index].get(), &event);
  }
}

void PeerConnections::dial(std::size_t which) {
  const ServerAddress& kelpd = known_[dials_[which].peer].kelpd;
  if (const auto where = numeric_address(kelpd)) return connect(which, *where);
  dials_[which].state = Dial::State::kResolving;
  names_.ask(kelpd.host);
}

void PeerConnections::take_names() {
  while (const std::optional<NameAnswer> answer = names_.take()) {
    for (std::size_t which = 0; which < dials_.size(); ++which) {
      const Dial& each = dials_[which];
      const ServerAddress& kelpd = known_[each.peer].kelpd;
      if (each.state != Dial::State::kResolving || kelpd.host != answer->host) continue;
      if (answer->addresses.empty()) {
        dial_failed(which, answer->error);
        continue;
      }
      // The next one after each failure.
      SocketAddress where = answer->addresses[each.failures % answer->addresses.size()];
      where.set_port(kelpd.port);
      if (may_go_without_key(address_of(*where.get()))) {
        connect(which, where);
      } else {
        dial_failed(which, address_of(*where.get()).text() + kNeedsKey);
      }
    }
  }
}

void PeerConnections::connect(std::size_t which, const SocketAddress& where) {
  Dial& wanted = dials_[which];
  const auto nonce = wire::fresh_nonce();
  UniqueFd socket(::socket(where.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket || !nonce) return dial_failed(which, error_text(errno));
  tune(socket.get());
  if (::connect(socket.get(), where.get(), where.length) != 0 && errno != EINPROGRESS) {
    return dial_failed(which, error_text(errno));
  }
  wanted.state = Dial::State::kTalking;
  wire::GatewayOffer offer;
  offer.node = options_.node;
  offer.worker = static_cast<std::uint16_t>(wanted.worker);
  offer.target_worker = wanted.target_worker;
  offer.slots = kSlots;
  offer.nonce = *nonce;
  const std::uint64_t id = kFirstTalk + ++last_id_;
  Talk& talk = talks_[id];
  talk.socket = std::move(socket);
  talk.gateway = std::make_unique<wire::GatewayHandshake>(offer, options_.keys);
  talk.unsent = talk.gateway->take_output();
  talk.address = known_[wanted.peer].kelpd.text();
  talk.end = Clock::now() + wire::kHandshakeLimit;
  talk.dial = which;
  talk.where = where;
  watch(id, true);
}

void PeerConnections::watch(std::uint64_t id, bool added) {
  const Talk& talk = talks_.at(id);
  epoll_event event{};
  event.events = EPOLLIN | (talk.unsent.empty() && talk.connected ? 0U : EPOLLOUT);
  event.data.u64 = id;
  ::epoll_ctl(epoll_.get(), added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, talk.socket.get(), &event);
}

void PeerConnections::go_on(std::uint64_t id, std::uint32_t events) {
  const auto found = talks_.find(id);
  if (found == talks_.end()) return;
  Talk& talk = found->second;
  std::string error;
  if (!send_and_receive(talk, events, error)) return failed(id, error);
  if (talk.handshake().state() == wire::Handshake::State::kFailed) {
    return failed(id, talk.handshake().failure());
  }
  if (talk.handshake().state() == wire::Handshake::State::kDone && talk.unsent.empty()) {
    return agreed(id);
  }
  watch(id, false);
}

/// False: the connection is of no use, and `error` says why.
bool PeerConnections::send_and_receive(Talk& talk, std::uint32_t events, std::string& error) {
  const int socket = talk.socket.get();
  if (!talk.connected && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
    int failure = 0;
    socklen_t length = sizeof failure;
    ::getsockopt(socket, SOL_SOCKET, SO_ERROR, &failure, &length);
    if (failure != 0) {
      error = error_text(failure);
      return false;
    }
    talk.connected = true;
  }
  if (!talk.connected) return true;
  // No more than a handshake has: what comes behind is the link's to read, or nobody's.
  std::array<std::byte, 1024> room;
  const ssize_t got = ::recv(socket, room.data(), room.size(), MSG_DONTWAIT);
  if (got == 0) {
    error = "it closes the connection";
    return false;
  }
  if (got < 0 && errno != EAGAIN) {
    error = error_text(errno);
    return false;
  }
  if (got > 0) talk.handshake().feed(std::span(room).first(static_cast<std::size_t>(got)));
  const auto more = talk.handshake().take_output();
  talk.unsent.insert(talk.unsent.end(), more.begin(), more.end());
  while (!talk.unsent.empty()) {
    const ssize_t sent =
        ::send(socket, talk.unsent.data(), talk.unsent.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) break;
    if (sent <= 0) {
      error = error_text(errno);
      return false;
    }
    talk.unsent.erase(talk.unsent.begin(), talk.unsent.begin() + sent);
  }
  return true;
}

void PeerConnections::agreed(std::uint64_t id) {
  Talk talk = std::move(talks_.extract(id).mapped());
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, talk.socket.get(), nullptr);
  const wire::Agreement& agreement = talk.handshake().agreement();
  auto link = std::make_unique<NewLink>();
  link->socket = std::move(talk.socket);
  link->agreement = agreement;
  link->id = id;
  link->counters = std::make_shared<LinkCounters>();
  link->received.assign(talk.handshake().leftover().begin(), talk.handshake().leftover().end());
  if (talk.gateway != nullptr) {
    Dial& wanted = dials_[talk.dial];
    if (wanted.traffic == nullptr) wanted.traffic = link->counters;
    link->counters = wanted.traffic;
    link->role = NewLink::Role::kGateway;
    link->peer = wanted.peer;
    if (!workers_[wanted.worker]->add_link(std::move(link))) {
      return dial_failed(talk.dial, "the worker has too many connections");
    }
    ++counters_.connected;
    wanted.state = Dial::State::kUp;
    wanted.was_up = true;
    wanted.up_since = Clock::now();
    wanted.error.clear();
    wanted.key_id = agreement.key_id;
    wanted.slots = agreement.slots;
    log_info("connected to a kelpd", {{"peer", talk.address},
                                      {"worker", std::to_string(wanted.worker)},
                                      {"target_worker", std::to_string(wanted.target_worker)}});
    tell_rdma(wanted, talk);
    dial_others(Dial(wanted), agreement.target_workers);
    return;
  }
  const std::uint32_t worker = agreement.target_worker;
  const std::shared_ptr<LinkCounters> traffic = link->counters;
  const auto of_worker = std::ranges::count(accepted_, worker, &Accepted::worker);
  if (static_cast<std::size_t>(of_worker) >= kMostLinksOfOneWorker ||
      !workers_[worker]->add_link(std::move(link))) {
    ++counters_.refused;
    return log_refused(talk.address, "the worker has too many connections");
  }
  accepted_.push_back(
      {talk.address, agreement.node, worker, agreement.key_id, id, agreement.slots, traffic});
  static LogLimiter limiter("a gateway has connected");
  if (limiter.allow()) {
    log_info("a gateway has connected", {{"peer", talk.address}, {"node", agreement.node}});
  }
}

/// The first connection to a target tells how many workers it has.
void PeerConnections::dial_others(const Dial& first, std::uint16_t target_workers) {
  for (std::uint16_t other = 1; other < target_workers; ++other) {
    const bool known = std::ranges::any_of(dials_, [&](const Dial& each) {
      return each.peer == first.peer && each.worker == first.worker && each.target_worker == other;
    });
    if (!known) {
      dials_.push_back({.peer = first.peer,
                        .worker = first.worker,
                        .target_worker = other,
                        .error = {},
                        .traffic = {}});
    }
  }
}

/// The target has said, signed with its key where there is one, whether it can be reached by RDMA.
void PeerConnections::tell_rdma(const Dial& dial, const Talk& talk) {
  const wire::Agreement& agreement = talk.gateway->agreement();
  if (rdma_ == nullptr || agreement.rdma_port == 0) return;
  SocketAddress where = talk.where;
  if (agreement.rdma_address != wire::RdmaAddress{}) {
    where = address_from(agreement.rdma_address);
  }
  where.set_port(agreement.rdma_port);
  rdma_->want(dial.peer, dial.worker, agreement.target_worker, where);
}

void PeerConnections::failed(std::uint64_t id, const std::string& why) {
  const Talk talk = std::move(talks_.extract(id).mapped());
  if (talk.gateway != nullptr) return dial_failed(talk.dial, why);
  ++counters_.refused;
  log_refused(talk.address, why);
}

void PeerConnections::dial_failed(std::size_t which, std::string why) {
  Dial& wanted = dials_[which];
  ++counters_.failed;
  const bool absent = known_[wanted.peer].guessed && !wanted.was_up;
  if (wanted.failures == 0 && !absent) {
    log_warning("no connection to a kelpd; its volumes are read over HTTP",
                {{"peer", known_[wanted.peer].kelpd.text()}, {"reason", why}});
  }
  const bool long_gone = known_[wanted.peer].guessed && wanted.failures >= kLongGone;
  Clock::duration pause = kShortestPause * (1 << std::min(wanted.failures++, 8U));
  pause = std::min<Clock::duration>(pause, kLongestPause);
  if (absent || long_gone) pause = kAbsentPause;
  if (rdma_ != nullptr) rdma_->forget(wanted.peer, wanted.worker, wanted.target_worker);
  wanted.state = Dial::State::kWaiting;
  wanted.next = Clock::now() + pause;
  wanted.error = std::move(why);
}

void PeerConnections::take_ended() {
  for (std::uint32_t worker = 0; worker < workers_.size(); ++worker) {
    while (const std::optional<LinkEnded> ended = workers_[worker]->take_ended_link()) {
      if (ended->path == KELP_PATH_VERBS) {
        rdma_->ended(*ended);
        continue;
      }
      if (ended->role == NewLink::Role::kTarget) {
        const auto found = std::ranges::find(accepted_, ended->id, &Accepted::id);
        if (found == accepted_.end()) continue;
        static LogLimiter limiter("a gateway's connection has ended");
        if (limiter.allow()) {
          log_info("a gateway's connection has ended",
                   {{"peer", found->address}, {"node", found->node}});
        }
        accepted_.erase(found);
        continue;
      }
      for (std::size_t which = 0; which < dials_.size(); ++which) {
        Dial& each = dials_[which];
        if (each.peer == ended->peer && each.worker == worker &&
            each.target_worker == ended->target_worker && each.state == Dial::State::kUp) {
          // One that ends at once, as where there is no io_uring, is no success.
          if (Clock::now() - each.up_since >= kLasting) each.failures = 0;
          dial_failed(which, "the connection ended");
        }
      }
    }
  }
}

std::vector<PeerReport> PeerConnections::reports() const {
  constexpr const char* kStates[] = {"waiting", "connecting", "connecting", "up"};
  std::vector<PeerReport> reports;
  for (const Dial& each : dials_) {
    const KnownPeer& peer = known_[each.peer];
    const bool absent = peer.guessed && !each.was_up && each.state == Dial::State::kWaiting;
    reports.push_back({peer.kelpd.text(),
                       {},
                       true,
                       peer.guessed,
                       each.worker,
                       each.target_worker,
                       absent ? "absent" : kStates[static_cast<std::size_t>(each.state)],
                       each.error,
                       each.state == Dial::State::kUp ? each.key_id : 0,
                       each.state == Dial::State::kUp ? each.slots : std::uint16_t{0},
                       each.traffic});
  }
  for (const Accepted& each : accepted_) {
    reports.push_back({each.address,
                       each.node,
                       false,
                       false,
                       0,
                       each.worker,
                       "up",
                       {},
                       each.key_id,
                       each.slots,
                       each.traffic});
  }
  return reports;
}

}  // namespace kelp
