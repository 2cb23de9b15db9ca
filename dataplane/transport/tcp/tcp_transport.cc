#include "dataplane/transport/tcp/tcp_transport.h"

#include <array>

namespace kelp {
namespace {

constexpr unsigned kEntries = 256;

}  // namespace

Result<std::unique_ptr<TcpTransport>> TcpTransport::create() {
  auto uring = Uring::create(kEntries);
  if (!uring) return tl::unexpected(uring.error());
  return std::unique_ptr<TcpTransport>(new TcpTransport(std::move(*uring)));
}

TcpGatewayLink& TcpTransport::add_gateway(UniqueFd socket, const wire::Agreement& agreement,
                                          std::span<const std::byte> received,
                                          GatewayLink::User& user) {
  const std::uint64_t id = ++last_id_;
  auto link =
      std::make_unique<TcpGatewayLink>(*uring_, std::move(socket), id, agreement, received, user);
  return *gateways_.emplace(id, std::move(link)).first->second;
}

TcpTargetLink& TcpTransport::add_target(UniqueFd socket, const wire::Agreement& agreement,
                                        std::span<const std::byte> received,
                                        TargetLink::User& user) {
  const std::uint64_t id = ++last_id_;
  auto link =
      std::make_unique<TcpTargetLink>(*uring_, std::move(socket), id, agreement, received, user);
  return *targets_.emplace(id, std::move(link)).first->second;
}

void TcpTransport::remove(const GatewayLink& link) {
  absl::erase_if(gateways_, [&](const auto& each) { return each.second.get() == &link; });
}

void TcpTransport::remove(const TargetLink& link) {
  absl::erase_if(targets_, [&](const auto& each) { return each.second.get() == &link; });
}

unsigned TcpTransport::poll() noexcept {
  std::array<Uring::Completion, 64> ended;
  const unsigned count = uring_->poll(ended);
  for (unsigned i = 0; i < count; ++i) {
    const std::uint64_t id = ended[i].user >> 8;
    if (const auto gateway = gateways_.find(id); gateway != gateways_.end()) {
      gateway->second->completed(ended[i].user, ended[i].result);
    } else if (const auto target = targets_.find(id); target != targets_.end()) {
      target->second->completed(ended[i].user, ended[i].result);
    }
  }
  return count;
}

}  // namespace kelp
