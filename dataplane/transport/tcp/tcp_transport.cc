#include "dataplane/transport/tcp/tcp_transport.h"

#include <algorithm>
#include <array>
#include <utility>

namespace kelp {
namespace {

constexpr unsigned kEntries = 256;
/// Arrivals from one connection, and from no other, that make it the busy one: enough to pay for
/// two system calls, to stop watching it and to start again.
constexpr unsigned kBusyAfter = 32;
/// About as long as a worker polls before it sleeps.
constexpr unsigned kMostInVain = 256;

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
  make_room();
  return *gateways_.emplace(id, std::move(link)).first->second;
}

TcpTargetLink& TcpTransport::add_target(UniqueFd socket, const wire::Agreement& agreement,
                                        std::span<const std::byte> received,
                                        TargetLink::User& user) {
  const std::uint64_t id = ++last_id_;
  auto link =
      std::make_unique<TcpTargetLink>(*uring_, std::move(socket), id, agreement, received, user);
  make_room();
  return *targets_.emplace(id, std::move(link)).first->second;
}

/// For one more.
void TcpTransport::make_room() {
  const std::size_t connections = gateways_.size() + targets_.size() + 1;
  ready_.reserve(connections);
  turn_.reserve(connections);
}

void TcpTransport::make_ready(TcpConnection& connection) noexcept {
  if (std::ranges::find(ready_, &connection) == ready_.end()) ready_.push_back(&connection);
}

void TcpTransport::remove(const GatewayLink& link) {
  absl::erase_if(gateways_, [&](const auto& each) {
    if (each.second.get() != &link) return false;
    forget(each.second->connection());
    return true;
  });
}

void TcpTransport::remove(const TargetLink& link) {
  absl::erase_if(targets_, [&](const auto& each) {
    if (each.second.get() != &link) return false;
    forget(each.second->connection());
    return true;
  });
}

void TcpTransport::forget(const TcpConnection& connection) noexcept {
  std::erase(ready_, &connection);
  if (last_ == &connection) last_ = nullptr;
  if (busy_ == &connection) busy_ = nullptr;
}

TcpConnection* TcpTransport::find(std::uint64_t id) noexcept {
  if (const auto found = gateways_.find(id); found != gateways_.end())
    return &found->second->connection();
  if (const auto found = targets_.find(id); found != targets_.end())
    return &found->second->connection();
  return nullptr;
}

unsigned TcpTransport::poll() noexcept {
  const unsigned count = ask_busy() + receive_ready();
  if (!uring_->has_work()) return count;
  std::array<Uring::Completion, 64> ended;
  const unsigned completions = uring_->poll(ended);
  for (unsigned i = 0; i < completions; ++i) {
    TcpConnection* const connection = find(ended[i].user >> 8);
    if (connection != nullptr && connection->completed(ended[i])) make_ready(*connection);
  }
  return count + completions + receive_ready();
}

/// A turn for each; who has more stays.
unsigned TcpTransport::receive_ready() noexcept {
  if (ready_.empty()) return 0;
  std::swap(turn_, ready_);
  unsigned count = 0;
  for (TcpConnection* const each : turn_) count += receive(*each) ? 1 : 0;
  turn_.clear();
  return count;
}

/// False: nothing had come.
bool TcpTransport::receive(TcpConnection& connection) noexcept {
  const TcpConnection::Received got = connection.receive();
  if (got == TcpConnection::Received::kNothing) return false;
  if (got == TcpConnection::Received::kPart && &connection != busy_) make_ready(connection);
  note_arrival(connection);
  return true;
}

// ---- the busy one

unsigned TcpTransport::ask_busy() noexcept {
  if (busy_ == nullptr) return 0;
  if (receive(*busy_)) {
    in_vain_ = 0;
    return 1;
  }
  if (++in_vain_ > kMostInVain || busy_->broken()) leave_busy();
  return 0;
}

void TcpTransport::note_arrival(TcpConnection& connection) noexcept {
  in_a_row_ = last_ == &connection ? in_a_row_ + 1 : 0;
  last_ = &connection;
  if (busy_ != nullptr || in_a_row_ < kBusyAfter || connection.broken()) return;
  busy_ = &connection;
  in_vain_ = 0;
  connection.stop_watching();
}

void TcpTransport::leave_busy() noexcept {
  in_a_row_ = 0;
  if (TcpConnection* const was = std::exchange(busy_, nullptr)) was->watch_again();
}

void TcpTransport::arm(bool armed) noexcept {
  // Whoever is about to sleep asks nobody.
  if (armed) leave_busy();
  uring_->arm(armed);
}

}  // namespace kelp
