#include "dataplane/worker/peer_links.h"

#include <sys/epoll.h>

#include <algorithm>
#include <new>

namespace kelp {
namespace {

/// Volumes whose kelpd is remembered: more than a cluster has.
constexpr std::size_t kMostRoutes = 1 << 20;
constexpr std::uint64_t kCloseUs = 1'000'000;

}  // namespace

void PeerLinks::close() noexcept {
  if (closed_) return;
  closed_ = true;
  for (const Gateway& each : gateways_) each.link->fence();
  for (const Target& each : targets_) each.link->fence();
  const auto all_fenced = [this] {
    return std::ranges::all_of(gateways_,
                               [](const Gateway& each) { return each.link->fenced(); }) &&
           std::ranges::all_of(targets_, [](const Target& each) { return each.link->fenced(); });
  };
  // Sockets are shut down, and queue pairs have been destroyed: a matter of microseconds.
  const Ticks end = ticks_now() + TickRate::instance().from_us(kCloseUs);
  while (!all_fenced() && ticks_now() < end) poll();
}

bool PeerLinks::add(std::unique_ptr<NewLink> made, GatewayLink::User& gateway,
                    TargetLink::User& target, int epoll) {
  try {
    if (made->counters == nullptr) made->counters = std::make_shared<LinkCounters>();
    if (!make_transport(made->endpoint != nullptr, epoll)) return false;
    start(*made, gateway, target);
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

bool PeerLinks::make_transport(bool verbs, int epoll) {
  if (verbs ? verbs_ != nullptr : tcp_ != nullptr) return true;
  if (verbs) {
    auto created = VerbsTransport::create();
    if (!created) return false;
    verbs_ = std::move(*created);
  } else {
    auto created = TcpTransport::create();
    if (!created) return false;
    tcp_ = std::move(*created);
  }
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, verbs ? verbs_->fd() : tcp_->fd(), &event) == 0;
}

void PeerLinks::start(NewLink& made, GatewayLink::User& gateway, TargetLink::User& target) {
  const kelp_path path = made.endpoint != nullptr ? KELP_PATH_VERBS : KELP_PATH_TCP;
  if (made.role == NewLink::Role::kGateway) {
    gateways_.reserve(gateways_.size() + 1);
    const auto keep = [&](GatewayLink& link) {
      link.count_in(std::move(made.counters));
      gateways_.push_back({made.peer, made.agreement.target_worker, made.agreement.target_workers,
                           &link, made.id, 0});
    };
    if (path == KELP_PATH_VERBS) {
      return keep(verbs_->add_gateway(std::move(made.endpoint), made.agreement, gateway));
    }
    TcpGatewayLink& link =
        tcp_->add_gateway(std::move(made.socket), made.agreement, made.received, gateway);
    keep(link);
    return link.start();
  }
  targets_.reserve(targets_.size() + 1);
  const auto keep = [&](TargetLink& link) {
    link.count_in(std::move(made.counters));
    targets_.push_back({&link, made.id, path});
  };
  if (path == KELP_PATH_VERBS) {
    return keep(verbs_->add_target(std::move(made.endpoint), std::move(made.arena), made.agreement,
                                   target));
  }
  TcpTargetLink& link =
      tcp_->add_target(std::move(made.socket), made.agreement, made.received, target);
  keep(link);
  link.start();
}

void PeerLinks::learn(std::uint32_t volume, PeerIndex peer, Ticks until) {
  if (routes_.size() >= kMostRoutes) routes_.clear();
  routes_[volume] = {peer, until};
}

std::optional<PeerIndex> PeerLinks::peer_for(std::uint32_t volume, Ticks now) noexcept {
  if (gateways_.empty()) return std::nullopt;
  const auto route = routes_.find(volume);
  if (route == routes_.end()) return std::nullopt;
  if (now < route->second.until) return route->second.peer;
  route->second.until = now + find_out_;
  return std::nullopt;
}

GatewayLink* PeerLinks::link_to(PeerIndex peer, std::uint32_t volume, kelp_path path) noexcept {
  for (const Gateway& each : gateways_) {
    if (each.peer != peer || each.link->path() != path) continue;
    if (each.link->ending() || each.suspected != 0) continue;
    if (volume % each.target_workers == each.target_worker) return each.link;
  }
  return nullptr;
}

void PeerLinks::suspect(const GatewayLink& link, Ticks now) noexcept {
  for (Gateway& each : gateways_) {
    if (each.link == &link && each.suspected == 0) each.suspected = now;
  }
}

void PeerLinks::heard(const GatewayLink& link) noexcept {
  for (Gateway& each : gateways_) {
    if (each.link == &link) each.suspected = 0;
  }
}

bool PeerLinks::flush() noexcept {
  bool more = false;
  for (const Gateway& each : gateways_) more |= each.link->flush();
  for (const Target& each : targets_) more |= each.link->flush();
  return more;
}

void PeerLinks::drain() noexcept {
  for (const Target& each : targets_) each.link->drain();
}

}  // namespace kelp
