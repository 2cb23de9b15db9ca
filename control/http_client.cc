#include "control/http_client.h"

#include <curl/curl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control/http_connection.h"
#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

/// Connections without a request that are kept, of all servers.
constexpr std::size_t kMostIdle = 512;
/// A connection that was idle for longer may have been forgotten by something in between.
constexpr std::chrono::seconds kLongestIdle{60};
constexpr std::size_t kMostServers = 4096;

struct Url {
  std::string base;       // "http://host:port"
  std::string authority;  // "host:port"
  std::string target;     // "/3,01637037d6"
};

/// What libcurl and a server would take apart differently is none.
std::optional<Url> parse_url(const std::string& text) {
  if (!std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; })) return std::nullopt;
  std::size_t host = 0;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (text.starts_with(scheme)) host = scheme.size();
  }
  if (host == 0) return std::nullopt;
  const std::size_t end = std::min(text.find_first_of("/?#", host), text.size());
  Url url{text.substr(0, end), text.substr(host, end - host), text.substr(end)};
  if (url.authority.empty() || url.authority.find_first_of("@\\") != std::string::npos ||
      url.target.find('#') != std::string::npos) {
    return std::nullopt;
  }
  if (!url.target.starts_with('/')) url.target.insert(0, "/");
  return url;
}

bool is_header_line(const std::string& line) {
  return std::ranges::all_of(line, [](char c) { return c >= ' ' && c != '\x7f'; });
}

/// Whether `code` ends a connection that was there: TLS did not come about.
bool spoke_to_it(CURLcode code) {
  return code == CURLE_SSL_CONNECT_ERROR || code == CURLE_PEER_FAILED_VERIFICATION ||
         code == CURLE_SSL_CIPHER || code == CURLE_SSL_INVALIDCERTSTATUS;
}

std::string request_text(const HttpClient::Request& request, const Url& url) {
  std::string text;
  text.reserve(256);
  text.append(request.method == HttpClient::Method::kHead ? "HEAD " : "GET ")
      .append(url.target)
      .append(" HTTP/1.1\r\nHost: ")
      .append(url.authority)
      .append("\r\nAccept: */*\r\n");
  for (const std::string& line : request.headers) text.append(line).append("\r\n");
  return text.append("\r\n");
}

}  // namespace

struct HttpClient::State final : HttpConnection::Watcher {
  /// One of a scheme, host and port.
  struct Server {
    std::string base;
    std::uint32_t connections = 0;
    std::vector<HttpConnection*> idle;  // the one used last is last
    std::deque<Ticket> waiting;         // for a connection; some may have ended meanwhile
  };
  /// One request, until it has ended.
  struct Transfer {
    Request request;
    std::function<void(HttpAnswer)> done;
    std::string text;  // as it is sent; kept for a second try
    Server* server = nullptr;
    HttpConnection* connection = nullptr;
    bool connected = false;
    Clock::time_point end;
    std::string body;
    bool too_long = false;
  };
  /// A socket in `epoll`.
  struct Watched {
    std::uint32_t events = 0;
    HttpConnection* connection = nullptr;
  };
  struct Held {
    Server* server;
    std::unique_ptr<HttpConnection> connection;
  };

  HttpClientOptions options;
  UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  std::array<epoll_event, 32> events{};
  int events_ready = 0;  // of wait(), for run()
  bool other_watched = false;
  std::unordered_map<int, Watched> watched;
  std::map<std::string, Server> servers;
  std::unordered_map<Ticket, Transfer> transfers;
  std::set<std::pair<Clock::time_point, Ticket>> ends;
  std::vector<Ticket> refused;  // by ask(); told from run()
  std::vector<Ticket> pending;  // their connections have more, and nothing says so
  std::set<std::pair<Clock::time_point, HttpConnection*>> idle;  // of all servers
  Ticket last_ticket = 0;
  std::set<HttpConnection*> connecting;
  std::map<HttpConnection*, Held> connections;  // ends before all the rest, which it uses

  // --- sockets

  bool watch(int socket, std::uint32_t events_of_interest, HttpConnection* connection) override {
    const auto [found, added] = watched.try_emplace(socket);
    found->second.connection = connection;
    if (!added && found->second.events == events_of_interest) return true;
    found->second.events = events_of_interest;
    epoll_event event{};
    event.events = events_of_interest;
    event.data.fd = socket;
    const int operation = added ? EPOLL_CTL_ADD : EPOLL_CTL_MOD;
    return ::epoll_ctl(epoll.get(), operation, socket, &event) == 0;
  }

  void unwatch(int socket) override {
    if (watched.erase(socket) != 0) ::epoll_ctl(epoll.get(), EPOLL_CTL_DEL, socket, nullptr);
  }

  // --- connections

  void close(HttpConnection* connection) {
    const auto found = connections.find(connection);
    Server& server = *found->second.server;
    if (connection->ticket == 0) take_from_idle(server, connection);
    connecting.erase(connection);
    if (connection->socket() >= 0) unwatch(connection->socket());
    --server.connections;
    connections.erase(found);
  }

  void take_from_idle(Server& server, HttpConnection* connection) {
    std::erase(server.idle, connection);
    idle.erase({connection->idle_since, connection});
  }

  /// An idle connection of `server` that may be used; null: there is none.
  HttpConnection* reuse(Server& server) {
    const Clock::time_point oldest = Clock::now() - kLongestIdle;
    while (!server.idle.empty()) {
      HttpConnection* const connection = server.idle.back();
      if (connection->idle_since < oldest) {
        close(connection);  // and so with those before it
        continue;
      }
      take_from_idle(server, connection);
      return connection;
    }
    return nullptr;
  }

  /// Its request has ended well: the next one has it, or it is kept.
  void release(HttpConnection* connection) {
    Server& server = *connections.at(connection).server;
    connection->ticket = 0;
    connection->used_before = true;
    if (const Ticket next = next_waiting(server); next != 0) {
      give(next, connection);
      return;
    }
    connection->idle_since = Clock::now();
    server.idle.push_back(connection);
    idle.emplace(connection->idle_since, connection);
    if (idle.size() > kMostIdle) close(idle.begin()->second);
  }

  /// It is closed, and whoever waits for a connection may make one.
  void discard(HttpConnection* connection) {
    Server& server = *connections.at(connection).server;
    const auto user = transfers.find(connection->ticket);
    if (user != transfers.end()) user->second.connection = nullptr;
    close(connection);
    const Ticket next = next_waiting(server);
    if (next == 0) return;
    try {
      connect(next);
    } catch (const std::bad_alloc&) {
      // It ends at its deadline, if no other connection gets to it before.
    }
  }

  Ticket next_waiting(Server& server) {
    while (!server.waiting.empty()) {
      const Ticket next = server.waiting.front();
      server.waiting.pop_front();
      if (transfers.contains(next)) return next;
    }
    return 0;
  }

  void give(Ticket ticket, HttpConnection* connection) {
    Transfer& transfer = transfers.at(ticket);
    transfer.connection = connection;
    transfer.connected = true;
    connection->ticket = ticket;
    connection->answer().expect(
        {[&transfer](const HttpHead& head) {
           return transfer.request.sink == nullptr || transfer.request.sink->begin(head);
         },
         [&transfer](std::span<const std::byte> part) { return take_body(transfer, part); }},
        transfer.request.method == Method::kHead);
    connection->send(transfer.text);
    watch_connection(*connection);
  }

  void watch_connection(HttpConnection& connection) {
    const std::uint32_t out = connection.sends() ? EPOLLOUT : 0U;
    watch(connection.socket(), EPOLLIN | out, &connection);
  }

  static bool take_body(Transfer& transfer, std::span<const std::byte> part) {
    if (transfer.request.sink != nullptr) return transfer.request.sink->take(part);
    if (part.size() > transfer.request.max_body_bytes - transfer.body.size()) {
      transfer.too_long = true;
      return false;
    }
    transfer.body.append(reinterpret_cast<const char*>(part.data()), part.size());
    return true;
  }

  void connect(Ticket ticket) {
    Transfer& transfer = transfers.at(ticket);
    auto made = std::make_unique<HttpConnection>(*this, transfer.server->base, options.ca_file,
                                                 transfer.request.connect_deadline);
    HttpConnection* const connection = made.get();
    connections.emplace(connection, Held{transfer.server, std::move(made)});
    connecting.insert(connection);
    ++transfer.server->connections;
    connection->ticket = ticket;
    transfer.connection = connection;
    transfer.connected = false;
  }

  void find_connection(Ticket ticket) {
    Transfer& transfer = transfers.at(ticket);
    Server& server = *transfer.server;
    if (HttpConnection* const idle_one = reuse(server)) {
      give(ticket, idle_one);
    } else if (options.connections_per_server != 0 &&
               server.connections >= options.connections_per_server) {
      server.waiting.push_back(ticket);
    } else {
      connect(ticket);
    }
  }

  /// Those nobody is connected to, or waits for.
  void forget_servers() {
    std::erase_if(servers, [](const auto& each) {
      return each.second.connections == 0 && each.second.waiting.empty();
    });
  }

  // --- ends

  /// Not to be used again: `transfer` is gone, and its connection is no longer its own.
  void end(Ticket ticket, HttpAnswer answer) {
    const auto found = transfers.find(ticket);
    const std::function<void(HttpAnswer)> done = std::move(found->second.done);
    ends.erase({found->second.end, ticket});
    transfers.erase(found);
    done(std::move(answer));
  }

  void fail(Ticket ticket, std::string error, bool reached, bool timed_out = false) {
    HttpAnswer answer;
    answer.error = std::move(error);
    answer.reached = reached;
    answer.timed_out = timed_out;
    end(ticket, std::move(answer));
  }

  void settle(HttpConnection* connection, HttpConnection::Connecting state) {
    if (state == HttpConnection::Connecting::kMore) return;
    connecting.erase(connection);
    const Ticket ticket = connection->ticket;
    if (state == HttpConnection::Connecting::kDone) {
      give(ticket, connection);
      return;
    }
    const CURLcode code = connection->failure();
    discard(connection);
    fail(ticket, ::curl_easy_strerror(code), spoke_to_it(code), code == CURLE_OPERATION_TIMEDOUT);
  }

  void go_on_connecting() {
    if (connecting.empty()) return;
    const Clock::time_point now = Clock::now();
    for (HttpConnection* const each : std::vector(connecting.begin(), connecting.end())) {
      // Ends of others may have been its own.
      if (!connecting.contains(each) || !each->due() || now < *each->due()) continue;
      settle(each, each->go_on(CURL_SOCKET_TIMEOUT, 0));
    }
  }

  void receive(HttpConnection& connection) {
    const Ticket ticket = connection.ticket;
    Transfer& transfer = transfers.at(ticket);
    switch (connection.receive()) {
      case HttpConnection::Received::kMore:
        return;
      case HttpConnection::Received::kPending:
        pending.push_back(ticket);
        return;
      case HttpConnection::Received::kDone: {
        HttpAnswer answer;
        answer.status = connection.answer().status();
        answer.body = std::move(transfer.body);
        if (connection.reusable()) {
          release(&connection);
        } else {
          discard(&connection);
        }
        end(ticket, std::move(answer));
        return;
      }
      case HttpConnection::Received::kRefused:
        discard(&connection);
        fail(ticket, transfer.too_long ? "its answer is too long" : "its answer is not wanted",
             true);
        return;
      case HttpConnection::Received::kClosed:
        if (connection.used_before) {  // it was kept for too long
          transfer.connection = nullptr;
          close(&connection);
          connect(ticket);
          return;
        }
        [[fallthrough]];
      case HttpConnection::Received::kBroken: {
        std::string error = connection.error();
        discard(&connection);
        fail(ticket, std::move(error), true);
        return;
      }
    }
  }

  void take_event(const epoll_event& event) {
    const auto found = watched.find(event.data.fd);
    if (found == watched.end()) return;  // the caller's, or closed since
    HttpConnection* const connection = found->second.connection;
    if (connection->socket() < 0) {
      int what = 0;
      if ((event.events & EPOLLIN) != 0) what |= CURL_CSELECT_IN;
      if ((event.events & EPOLLOUT) != 0) what |= CURL_CSELECT_OUT;
      if ((event.events & (EPOLLERR | EPOLLHUP)) != 0) what |= CURL_CSELECT_ERR;
      settle(connection, connection->go_on(event.data.fd, what));
      return;
    }
    if (connection->ticket == 0) {
      close(connection);  // the server closed it, or sends what nobody asked for
      return;
    }
    if ((event.events & EPOLLOUT) != 0) {
      connection->send_rest();
      if (!connection->sends()) watch_connection(*connection);
    }
    if ((event.events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) receive(*connection);
  }

  void take_pending() {
    for (const Ticket ticket : std::exchange(pending, {})) {
      const auto found = transfers.find(ticket);
      if (found == transfers.end() || !found->second.connected) continue;
      receive(*found->second.connection);
    }
  }

  void end_overdue() {
    const Clock::time_point now = Clock::now();
    while (!ends.empty() && ends.begin()->first <= now) {
      const Ticket ticket = ends.begin()->second;
      Transfer& transfer = transfers.at(ticket);
      const bool reached = transfer.connected;
      if (transfer.connection != nullptr) discard(transfer.connection);
      fail(ticket, ::curl_easy_strerror(CURLE_OPERATION_TIMEDOUT), reached, true);
    }
  }
};

Result<HttpClient> HttpClient::create(const HttpClientOptions& options) {
  static const CURLcode initialised = ::curl_global_init(CURL_GLOBAL_DEFAULT);
  auto state = std::make_unique<State>();
  if (initialised != CURLE_OK || !state->epoll) {
    return system_error("cannot set up libcurl");
  }
  state->options = options;
  return HttpClient(std::move(state));
}

HttpClient::HttpClient(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpClient::HttpClient(HttpClient&&) noexcept = default;
HttpClient& HttpClient::operator=(HttpClient&&) noexcept = default;
HttpClient::~HttpClient() = default;

HttpClient::Ticket HttpClient::ask(Request request, std::function<void(HttpAnswer)> done) {
  State& state = *state_;
  const std::optional<Url> url = parse_url(request.url);
  const bool sound = url && std::ranges::all_of(request.headers, is_header_line);
  const Ticket ticket = ++state.last_ticket;
  State::Transfer& transfer = state.transfers[ticket];
  transfer.request = std::move(request);
  transfer.done = std::move(done);
  transfer.end = Clock::now() + transfer.request.deadline;
  state.ends.emplace(transfer.end, ticket);
  if (state.servers.size() > kMostServers) state.forget_servers();
  if (!sound) {
    state.refused.push_back(ticket);
    return ticket;
  }
  try {
    transfer.text = request_text(transfer.request, *url);
    transfer.server =
        &state.servers.try_emplace(url->base, State::Server{url->base, 0, {}, {}}).first->second;
    state.find_connection(ticket);
  } catch (...) {
    state.ends.erase({transfer.end, ticket});
    state.transfers.erase(ticket);
    throw;
  }
  return ticket;
}

void HttpClient::cancel(Ticket ticket) {
  const auto found = state_->transfers.find(ticket);
  if (found == state_->transfers.end()) return;
  HttpConnection* const connection = found->second.connection;
  state_->ends.erase({found->second.end, ticket});
  state_->transfers.erase(found);
  if (connection != nullptr) state_->discard(connection);
}

int HttpClient::epoll_fd() const noexcept {
  return state_->epoll.get();
}

void HttpClient::run() {
  State& state = *state_;
  auto& events = state.events;
  const int count = state.events_ready > 0 ? std::exchange(state.events_ready, 0)
                                           : ::epoll_wait(state.epoll.get(), events.data(),
                                                          static_cast<int>(events.size()), 0);
  for (int i = 0; i < count; ++i) state.take_event(events[static_cast<std::size_t>(i)]);
  state.go_on_connecting();
  state.take_pending();
  for (const Ticket ticket : std::exchange(state.refused, {})) {
    if (state.transfers.contains(ticket)) state.fail(ticket, "it is no http or https URL", false);
  }
  state.end_overdue();
}

void HttpClient::wait(int fd, std::chrono::milliseconds at_most) {
  if (!state_->other_watched) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    ::epoll_ctl(state_->epoll.get(), EPOLL_CTL_ADD, fd, &event);
    state_->other_watched = true;
  }
  auto& events = state_->events;
  state_->events_ready =
      ::epoll_wait(state_->epoll.get(), events.data(), static_cast<int>(events.size()),
                   static_cast<int>(at_most.count()));
}

std::optional<std::chrono::milliseconds> HttpClient::timeout() const {
  if (!state_->refused.empty() || !state_->pending.empty()) return std::chrono::milliseconds(0);
  std::optional<Clock::time_point> next;
  const auto sooner = [&](Clock::time_point when) { next = next ? std::min(*next, when) : when; };
  if (!state_->ends.empty()) sooner(state_->ends.begin()->first);
  for (const HttpConnection* each : state_->connecting) {
    if (each->due()) sooner(*each->due());
  }
  if (!next) return std::nullopt;
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(*next - Clock::now());
  return std::max(left, std::chrono::milliseconds(0));
}

}  // namespace kelp
