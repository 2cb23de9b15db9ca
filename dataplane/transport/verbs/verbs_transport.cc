#include "dataplane/transport/verbs/verbs_transport.h"

#include <sys/epoll.h>

#include <array>

namespace kelp {

Result<std::unique_ptr<VerbsTransport>> VerbsTransport::create() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) return system_error("cannot make the epoll set of RDMA connections");
  return std::unique_ptr<VerbsTransport>(new VerbsTransport(std::move(epoll)));
}

VerbsGatewayLink& VerbsTransport::add_gateway(std::shared_ptr<VerbsEndpoint> endpoint,
                                              const wire::Agreement& agreement,
                                              GatewayLink::User& user) {
  gateways_.push_back(std::make_unique<VerbsGatewayLink>(std::move(endpoint), agreement, user));
  watch(gateways_.back()->endpoint());
  return *gateways_.back();
}

VerbsTargetLink& VerbsTransport::add_target(std::shared_ptr<VerbsEndpoint> endpoint,
                                            std::shared_ptr<RegisteredArena> arena,
                                            const wire::Agreement& agreement,
                                            TargetLink::User& user) {
  targets_.push_back(
      std::make_unique<VerbsTargetLink>(std::move(endpoint), std::move(arena), agreement, user));
  watch(targets_.back()->endpoint());
  return *targets_.back();
}

void VerbsTransport::watch(const VerbsEndpoint& endpoint) noexcept {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, endpoint.channel_fd(), &event);
}

void VerbsTransport::remove(const GatewayLink& link) {
  std::erase_if(gateways_, [&](const auto& each) { return each.get() == &link; });
}

void VerbsTransport::remove(const TargetLink& link) {
  std::erase_if(targets_, [&](const auto& each) { return each.get() == &link; });
}

unsigned VerbsTransport::poll() noexcept {
  unsigned count = 0;
  for (const auto& each : gateways_) count += each->poll();
  for (const auto& each : targets_) count += each->poll();
  return count;
}

void VerbsTransport::arm(bool armed) noexcept {
  if (!armed) return;
  // What has been told is told.
  std::array<epoll_event, 16> told;
  while (::epoll_wait(epoll_.get(), told.data(), told.size(), 0) == static_cast<int>(told.size())) {
  }
  for (const auto& each : gateways_) each->endpoint().arm();
  for (const auto& each : targets_) each->endpoint().arm();
}

}  // namespace kelp
