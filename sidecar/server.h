// The loop of the sidecar: sockets on one side, the ring on the other, one thread for both.
//
//   epoll ─► receive ─► head ─► Exchange ─► Reads ─► ring
//     ▲                                               │ completions
//     └──────── send, from the ring's memory ◄────────┘
//
// A connection has one exchange at a time; later requests wait in its input or in the kernel. What
// clients can make it hold is bounded: connections, a head each, and the slabs of Buffers.
// So is what one connection gets done in a turn.
// Whoever holds slabs and takes next to nothing is closed for those who wait.
#pragma once

#include <sys/epoll.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shm_ring/result.h"
#include "sidecar/connection.h"
#include "sidecar/counters.h"
#include "sidecar/options.h"
#include "sidecar/pages.h"
#include "sidecar/query.h"
#include "sidecar/read_answer.h"
#include "sidecar/request_head.h"
#include "sidecar/ring.h"
#include "sidecar/temp_files.h"

namespace kelp::sidecar {

class Server {
 public:
  static Result<std::unique_ptr<Server>> create(Options options);
  ~Server();

  /// Serves until stop(). The sidecar's thread.
  void run();
  /// Any thread: stop() ends run() at once, drain() lets requests under way come to their end.
  void stop() noexcept;
  void drain() noexcept;
  /// Any thread.
  const Counters& counters() const noexcept { return counters_; }

 private:
  explicit Server(Options options);
  Result<void> set_up();
  void leave_descriptors();

  void attach_ring();
  void lose_ring();
  void turn();
  void wake() noexcept;
  void begin_drain();
  void sleep(std::array<epoll_event, 128>& events, int& count);
  int timeout_ms() const;
  void take_completions();
  void serve_waiting();
  void serve_queued();
  void handle(const epoll_event& event);
  void keep_time();

  // server_connections.cc
  void accept_from(int listener);
  void add_connection(UniqueFd socket);
  void make_room();
  void close(Connection& connection);
  void close_idle();
  void close_lingering(Connection& connection, Clock::time_point now);
  void close_slow_ones(Clock::time_point now);
  void shed_blocked(Clock::time_point now);
  static std::int64_t taken(const Connection& connection);
  void recycle(std::unique_ptr<Exchange> exchange);

  // server_requests.cc
  /// What can be done for it in one turn: receives, answers, sends.
  void pump(Connection& connection);
  bool next_request(Connection& connection);
  bool take_head(Connection& connection, std::span<char> bytes, std::size_t& used);
  bool drop_input(Connection& connection, std::size_t bytes);
  void queue(Connection& connection);
  void linger(Connection& connection);
  void drain(Connection& connection);
  void begin(Connection& connection, std::span<char> head);
  void refuse(Connection& connection, int status, std::string_view sentence);
  void route(Exchange& exchange, const RequestHead& head, const Query& query);
  void route_page(Exchange& exchange, std::string_view path);
  void route_read(Exchange& exchange, const RequestHead& head, const Query& query);
  void route_benchmark(Exchange& exchange, const Query& query);
  void route_cleanup(Exchange& exchange, const Query& query);
  Exchange& new_exchange(Connection& connection);
  /// True: all is sent.
  bool send(Connection& connection);
  void count_sent(Connection& connection, std::size_t bytes);
  void finish(Connection& connection);
  Condition condition() const;

  /// Also what a connection may keep of requests to come while one is answered.
  static constexpr std::size_t kReceiveBytes = 16 * 1024;

  Options options_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> drain_wanted_{false};
  bool draining_ = false;
  bool drained_ = false;
  Counters counters_;
  std::optional<TempFiles> temp_files_;
  Ring ring_;
  Reads reads_;
  std::vector<int> ring_descriptors_;
  std::vector<std::unique_ptr<Connection>> connections_;  // by index
  std::vector<std::uint32_t> generations_;
  std::vector<std::uint32_t> free_places_;
  std::vector<std::unique_ptr<Exchange>> spare_;
  std::vector<std::unique_ptr<Exchange>> orphans_;  // reads for those that are gone
  std::vector<std::uint32_t> answered_;
  std::vector<std::uint64_t> queued_;   // ids of connections that the next turn goes on with
  std::vector<std::uint64_t> serving_;  // those of this turn
  std::unique_ptr<char[]> received_;
  std::uint32_t open_ = 0;
  Clock::time_point now_ = Clock::now();
  Clock::time_point next_look_{};
  Clock::time_point next_shed_{};
  Clock::time_point next_attach_{};
  Clock::time_point listeners_pause_end_{};
  bool listeners_paused_ = false;
};

}  // namespace kelp::sidecar
