#include "sidecar/server.h"

#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "sidecar/event_ids.h"

namespace kelp::sidecar {
namespace {

/// Batches of completions that are taken before the sockets are looked at again.
constexpr int kMostBatches = 4;
constexpr std::chrono::milliseconds kLookEvery{250};
constexpr std::chrono::milliseconds kAttachEvery{200};
/// While somebody waits for a slab, or reads are under way that may be overdue.
constexpr int kWaitersMs = 10;
constexpr int kOverdueMs = 100;
constexpr int kIdleMs = 1000;

}  // namespace

Server::Server(Options options)
    : options_(std::move(options)),
      ring_(options_.run_dir),
      reads_(ring_, options_.mount_accepts, counters_),
      received_(std::make_unique<char[]>(kReceiveBytes)) {}

Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(Options options) {
  std::unique_ptr<Server> server(new Server(std::move(options)));
  if (auto done = server->set_up(); !done) return tl::unexpected(done.error());
  return server;
}

Result<void> Server::set_up() {
  leave_descriptors();
  if (!options_.temp_dir.empty()) {
    auto opened = TempFiles::open(options_.temp_dir, options_.temp_max_bytes);
    if (!opened) return tl::unexpected(opened.error());
    temp_files_.emplace(std::move(*opened));
    reads_.offer_files(*temp_files_, options_.temp_min_bytes);
  }
  epoll_.reset(::epoll_create1(EPOLL_CLOEXEC));
  wake_.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!epoll_ || !wake_) return system_error("cannot create the sidecar's epoll set");
  const auto watch = [&](int fd, std::uint64_t id) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = id;
    return ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
  };
  bool watched = watch(wake_.get(), special_id(Special::kWake));
  for (std::uint32_t i = 0; i < options_.listeners.size(); ++i) {
    watched = watched && watch(options_.listeners[i].get(), special_id(Special::kListener, i));
  }
  if (!watched) return system_error("cannot watch the sidecar's listeners");
  return {};
}

/// Volumes and programs of this process need some, too.
void Server::leave_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
  const auto most = std::max<rlim_t>(limit.rlim_cur / 4 * 3, 1);
  options_.max_connections =
      static_cast<std::uint32_t>(std::min<rlim_t>(options_.max_connections, most));
}

void Server::wake() noexcept {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

// relaxed, both: the write that wakes is what orders them.
void Server::stop() noexcept {
  stopping_.store(true, std::memory_order_relaxed);
  wake();
}

void Server::drain() noexcept {
  drain_wanted_.store(true, std::memory_order_relaxed);
  wake();
}

void Server::begin_drain() {
  draining_ = true;
  for (UniqueFd& listener : options_.listeners) {
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, listener.get(), nullptr);
    listener.reset();
  }
  listeners_paused_ = false;
  close_idle();
}

void Server::run() {
  while (!stopping_.load(std::memory_order_relaxed)) turn();
  for (auto& connection : connections_) {
    if (connection != nullptr) close(*connection);
  }
  // What is still in flight is let go with the ring.
  ring_.detach();
  orphans_.clear();
}

void Server::turn() {
  if (!ring_.attached() && now_ >= next_attach_) attach_ring();
  std::array<epoll_event, 128> events;
  int count = 0;
  sleep(events, count);
  now_ = Clock::now();
  for (int i = 0; i < count; ++i) handle(events[static_cast<std::size_t>(i)]);
  take_completions();
  serve_waiting();
  serve_queued();
  if (now_ >= next_look_) keep_time();
  if (!draining_ || drained_ || open_ != 0) return;
  drained_ = true;
  options_.drained();
}

void Server::attach_ring() {
  next_attach_ = now_ + kAttachEvery;
  if (!ring_.attach()) return;
  ring_descriptors_ = ring_.descriptors();
  for (const int fd : ring_descriptors_) {
    epoll_event event{};
    event.events = EPOLLIN | EPOLLRDHUP;
    event.data.u64 = special_id(Special::kRing);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  }
}

/// Everybody who waits for it gets an answer; a new one is tried for.
void Server::lose_ring() {
  for (const int fd : ring_descriptors_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  ring_descriptors_.clear();
  for (auto& orphan : orphans_) reads_.lost(*orphan);
  orphans_.clear();
  std::vector<std::uint32_t> affected;
  for (auto& connection : connections_) {
    if (connection == nullptr || connection->exchange == nullptr) continue;
    reads_.lost(*connection->exchange);
    affected.push_back(connection->index);
  }
  ring_.detach();
  next_attach_ = now_ + kAttachEvery;
  for (const std::uint32_t index : affected) {
    if (connections_[index] != nullptr) pump(*connections_[index]);
  }
}

int Server::timeout_ms() const {
  if (!queued_.empty()) return 0;
  if (reads_.anyone_waits() || ring_.behind()) return kWaitersMs;
  if (ring_.in_flight() != 0 || !ring_.attached()) return kOverdueMs;
  return open_ != 0 || listeners_paused_ ? static_cast<int>(kLookEvery.count()) : kIdleMs;
}

void Server::sleep(std::array<epoll_event, 128>& events, int& count) {
  int timeout = timeout_ms();
  const bool armed = ring_.attached() && ring_.in_flight() != 0;
  if (armed && ring_.arm()) timeout = 0;
  count = std::max(
      0, ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout));
  if (!armed) return;
  ring_.disarm(std::any_of(events.begin(), events.begin() + count, [](const epoll_event& event) {
    return event.data.u64 == special_id(Special::kRing);
  }));
}

void Server::take_completions() {
  std::array<kelp_completion, 64> done;
  for (int batch = 0; batch < kMostBatches && ring_.attached(); ++batch) {
    if (!ring_.submit()) return lose_ring();
    if (ring_.in_flight() == 0) return;
    std::uint32_t count = 0;
    // Never spins: while it sleeps the worker has a CPU, and so has whoever asks.
    if (!ring_.reap(done, count)) return lose_ring();
    if (count == 0) return;
    for (std::uint32_t i = 0; i < count; ++i) {
      Exchange& exchange = reads_.completed(done[i]);
      if (!exchange.orphan) {
        pump(*connections_[exchange.connection]);
      } else if (reads_.release(exchange)) {
        std::erase_if(orphans_, [&](const auto& each) { return each.get() == &exchange; });
      }
    }
  }
  if (ring_.attached() && !ring_.submit()) lose_ring();
}

void Server::serve_waiting() {
  if (!reads_.anyone_waits() || !ring_.attached()) return;
  answered_.clear();
  if (reads_.serve_waiting(now_, answered_)) shed_blocked(now_);
  for (const std::uint32_t index : answered_) {
    if (connections_[index] != nullptr) pump(*connections_[index]);
  }
  if (!ring_.submit()) lose_ring();
}

/// Those that had more to do than one turn is for. Some may be gone by now.
void Server::serve_queued() {
  serving_.clear();
  serving_.swap(queued_);
  for (const std::uint64_t id : serving_) {
    Connection* const connection = connections_[number_of(id)].get();
    if (connection == nullptr || connection->generation != generation_of(id)) continue;
    connection->queued = false;
    pump(*connection);
  }
}

void Server::handle(const epoll_event& event) {
  const std::uint64_t id = event.data.u64;
  if (is_special(id)) {
    if (special_of(id) == Special::kWake) {
      std::uint64_t count = 0;
      [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
      if (drain_wanted_.load(std::memory_order_relaxed) && !draining_) begin_drain();
      return;
    }
    if (special_of(id) == Special::kListener && !draining_) {
      accept_from(options_.listeners[number_of(id)].get());
    }
    // A daemon that hangs up makes its socket readable for ever: reap() notices, if asked.
    if (special_of(id) == Special::kRing && (event.events & (EPOLLRDHUP | EPOLLHUP)) != 0) {
      lose_ring();
    }
    return;
  }
  const std::uint32_t index = number_of(id);
  Connection* const connection = index < connections_.size() ? connections_[index].get() : nullptr;
  if (connection == nullptr || connection->generation != generation_of(id)) return;
  if ((event.events & EPOLLERR) != 0) return close(*connection);
  // Of one that lingers our half has ended, too: it is read to its end, or the end would be a
  // reset.
  if ((event.events & EPOLLHUP) != 0 && !connection->lingers) return close(*connection);
  if ((event.events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP)) != 0) connection->readable = true;
  if ((event.events & EPOLLRDHUP) != 0) connection->ending = true;
  pump(*connection);
}

void Server::keep_time() {
  next_look_ = now_ + kLookEvery;
  close_slow_ones(now_);
  if (temp_files_) temp_files_->expire(now_);
  if (!listeners_paused_ || now_ < listeners_pause_end_) return;
  listeners_paused_ = false;
  for (std::uint32_t i = 0; i < options_.listeners.size(); ++i) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = special_id(Special::kListener, i);
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, options_.listeners[i].get(), &event);
  }
}

}  // namespace kelp::sidecar
