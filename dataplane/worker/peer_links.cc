#include "dataplane/worker/peer_links.h"

#include <algorithm>
#include <new>

namespace kelp {
namespace {

/// Volumes whose kelpd is remembered: more than a cluster has.
constexpr std::size_t kMostRoutes = 1 << 20;
constexpr std::uint64_t kCloseUs = 1'000'000;

}  // namespace

void PeerLinks::close() noexcept {
  if (transport_ == nullptr || closed_) return;
  closed_ = true;
  for (const Gateway& each : gateways_) each.link->fence();
  for (const Target& each : targets_) each.link->fence();
  const auto all_fenced = [this] {
    return std::ranges::all_of(gateways_,
                               [](const Gateway& each) { return each.link->fenced(); }) &&
           std::ranges::all_of(targets_, [](const Target& each) { return each.link->fenced(); });
  };
  // Their sockets are shut down, so this is a matter of microseconds.
  const Ticks end = ticks_now() + TickRate::instance().from_us(kCloseUs);
  while (!all_fenced() && ticks_now() < end) transport_->poll();
}

bool PeerLinks::add(std::unique_ptr<NewLink> made, GatewayLink::User& gateway,
                    TargetLink::User& target) {
  try {
    if (made->counters == nullptr) made->counters = std::make_shared<LinkCounters>();
    if (transport_ == nullptr) {
      auto created = TcpTransport::create();
      if (!created) return false;
      transport_ = std::move(*created);
    }
    if (made->role == NewLink::Role::kGateway) {
      TcpGatewayLink& link = transport_->add_gateway(std::move(made->socket), made->agreement,
                                                     made->received, gateway);
      gateways_.push_back({made->peer, made->agreement.target_worker,
                           made->agreement.target_workers, &link, made->id, 0});
      link.count_in(std::move(made->counters));
      link.start();
    } else {
      TcpTargetLink& link =
          transport_->add_target(std::move(made->socket), made->agreement, made->received, target);
      targets_.push_back({&link, made->id});
      link.count_in(std::move(made->counters));
      link.start();
    }
  } catch (const std::bad_alloc&) {
    return false;
  }
  return true;
}

void PeerLinks::learn(std::uint32_t volume, PeerIndex peer, Ticks until) {
  if (routes_.size() >= kMostRoutes) routes_.clear();
  routes_[volume] = {peer, until};
}

GatewayLink* PeerLinks::link_for(std::uint32_t volume, Ticks now) noexcept {
  if (gateways_.empty()) return nullptr;
  const auto route = routes_.find(volume);
  if (route == routes_.end()) return nullptr;
  if (now >= route->second.until) {
    routes_.erase(route);
    return nullptr;
  }
  for (const Gateway& each : gateways_) {
    if (each.peer != route->second.peer || each.link->ending() || each.suspected != 0) continue;
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
