// Connections as a whole: who comes, who is too slow, who goes.
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "sidecar/event_ids.h"
#include "sidecar/server.h"

namespace kelp::sidecar {
namespace {

/// Accepted in one turn, so that those who are there are served in between.
constexpr int kMostAccepts = 64;
constexpr std::chrono::milliseconds kListenersPause{100};

/// A head that does not come to an end, from its first byte.
constexpr std::chrono::seconds kHeadTime{10};
/// Silence between requests, and before the first.
constexpr std::chrono::seconds kQuietTime{75};
/// What still comes after the last answer, before the connection is cut.
constexpr std::chrono::seconds kLingerTime{2};
/// A client that takes less than this in that time is too slow.
constexpr std::chrono::seconds kWindow{10};
constexpr std::int64_t kLeastWindowBytes = 160 * 1024;
/// One that takes less in that time may be closed for others who wait.
constexpr std::chrono::milliseconds kShedAfter{500};
constexpr std::int64_t kLeastShedBytes = 32 * 1024;
constexpr std::chrono::milliseconds kShedEvery{10};
constexpr std::size_t kMostShed = 4;
/// When all places are taken, so many of those without a request give theirs up.
constexpr std::uint32_t kRoomShare = 16;

constexpr std::size_t kMostSpare = 256;

bool holds_slab(const Exchange* exchange) {
  return exchange != nullptr &&
         std::any_of(exchange->pieces.begin(), exchange->pieces.end(),
                     [](const Piece& piece) { return piece.slab != nullptr; });
}

/// What went out has arrived, and nothing that came is unread: an end takes nothing away.
bool is_settled(int socket) {
  int unsent = 0;
  int unread = 0;
  ::ioctl(socket, SIOCOUTQ, &unsent);
  ::ioctl(socket, SIOCINQ, &unread);
  return unsent == 0 && unread == 0;
}

}  // namespace

void Server::accept_from(int listener) {
  for (int i = 0; i < kMostAccepts; ++i) {
    UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket) {
      add_connection(std::move(socket));
      continue;
    }
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // The listener stays readable: without a pause the loop would turn in vain.
      make_room();
      listeners_paused_ = true;
      listeners_pause_end_ = now_ + kListenersPause;
      epoll_event event{};
      ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, listener, &event);
    }
    if (errno != EINTR && errno != ECONNABORTED) return;
  }
}

void Server::add_connection(UniqueFd socket) {
  if (open_ >= options_.max_connections) make_room();
  if (open_ >= options_.max_connections) {
    constexpr std::string_view kNoRoom =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    [[maybe_unused]] const ssize_t sent =
        ::send(socket.get(), kNoRoom.data(), kNoRoom.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    counters_.shed.add();
    return;
  }
  if (free_places_.empty()) {
    free_places_.push_back(static_cast<std::uint32_t>(connections_.size()));
    connections_.emplace_back();
    generations_.push_back(0);
  }
  const std::uint32_t index = free_places_.back();
  auto connection = std::make_unique<Connection>();
  connection->socket = std::move(socket);
  connection->index = index;
  connection->generation = generations_[index];
  connection->quiet_since = now_;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
  event.data.u64 = connection_id(index, connection->generation);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, connection->socket.get(), &event) != 0) return;
  free_places_.pop_back();
  connections_[index] = std::move(connection);
  ++open_;
  counters_.connections.add();
  // No pump(): its first event says whether there is anything.
}

/// Of those without a request the ones that have been quiet for longest go.
void Server::make_room() {
  std::vector<Connection*> quiet;
  for (const auto& each : connections_) {
    if (each != nullptr && each->exchange == nullptr) quiet.push_back(each.get());
  }
  const std::size_t count =
      std::min<std::size_t>(quiet.size(), std::max(1u, options_.max_connections / kRoomShare));
  if (count == 0) return;
  std::nth_element(
      quiet.begin(), quiet.begin() + static_cast<std::ptrdiff_t>(count - 1), quiet.end(),
      [](const Connection* a, const Connection* b) { return a->quiet_since < b->quiet_since; });
  for (std::size_t i = 0; i < count; ++i) {
    counters_.shed.add();
    close(*quiet[i]);
  }
}

void Server::close(Connection& connection) {
  const std::uint32_t index = connection.index;
  if (connection.exchange != nullptr) {
    if (connection.exchange->answering && !connection.exchange->all_sent()) {
      counters_.broken_off.add();
    }
    recycle(std::move(connection.exchange));
  }
  generations_[index] = next_generation(generations_[index]);
  free_places_.push_back(index);
  --open_;
  connections_[index].reset();  // closes the socket, which takes it out of the epoll set
}

/// Those that ask for nothing at the moment.
void Server::close_idle() {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    Connection* const each = connections_[i].get();
    if (each == nullptr || each->exchange != nullptr || each->lingers) continue;
    if (is_settled(each->socket.get())) {
      close(*each);
    } else {
      linger(*each);
      pump(*each);
    }
  }
}

void Server::recycle(std::unique_ptr<Exchange> exchange) {
  if (!reads_.release(*exchange)) {
    orphans_.push_back(std::move(exchange));
  } else if (spare_.size() < kMostSpare) {
    spare_.push_back(std::move(exchange));
  }
}

void Server::close_slow_ones(Clock::time_point now) {
  for (std::size_t i = 0; i < connections_.size(); ++i) {
    Connection* const each = connections_[i].get();
    if (each == nullptr) continue;
    if (each->lingers) {
      close_lingering(*each, now);
      continue;
    }
    bool slow = false;
    if (each->exchange == nullptr) {
      const auto patience = each->input.empty() ? kQuietTime : kHeadTime;
      slow = now - each->quiet_since >= patience;
      if (slow && !each->input.empty()) {
        counters_.timed_out.add();
        refuse(*each, 408, "the request did not come to its end within 10 s");
        pump(*each);
        continue;
      }
    } else if (each->blocked && now - each->window_start >= kWindow) {
      const std::int64_t now_taken = taken(*each);
      slow = now_taken - each->window_taken < kLeastWindowBytes;
      each->window_start = now;
      each->window_taken = now_taken;
    }
    if (!slow) continue;
    counters_.timed_out.add();
    close(*each);
  }
}

/// A drain does not wait for clients that leave their end open.
void Server::close_lingering(Connection& connection, Clock::time_point now) {
  const bool over = now - connection.quiet_since >= kLingerTime;
  if (over || (draining_ && is_settled(connection.socket.get()))) close(connection);
}

/// Bytes of answers that have reached the client's side. Only differences have a meaning: what a
/// Unix socket holds is counted with what the kernel needs besides.
std::int64_t Server::taken(const Connection& connection) {
  int unsent = 0;
  if (::ioctl(connection.socket.get(), SIOCOUTQ, &unsent) != 0) unsent = 0;
  return static_cast<std::int64_t>(connection.sent) - unsent;
}

/// Slabs that clients do not read from are wanted by others.
void Server::shed_blocked(Clock::time_point now) {
  if (now < next_shed_) return;
  next_shed_ = now + kShedEvery;
  std::vector<Connection*> blocked;
  for (const auto& each : connections_) {
    if (each == nullptr || !each->blocked || !holds_slab(each->exchange.get())) continue;
    const std::int64_t now_taken = taken(*each);
    if (now_taken - each->progress_taken >= kLeastShedBytes) {
      each->progress_at = now;
      each->progress_taken = now_taken;
    } else if (now - each->progress_at >= kShedAfter) {
      blocked.push_back(each.get());
    }
  }
  std::sort(blocked.begin(), blocked.end(), [](const Connection* a, const Connection* b) {
    return a->progress_at < b->progress_at;
  });
  for (std::size_t i = 0; i < std::min(blocked.size(), kMostShed); ++i) {
    counters_.shed.add();
    close(*blocked[i]);
  }
}

}  // namespace kelp::sidecar
