// Requests of one connection: received, judged, answered, sent.
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "sidecar/event_ids.h"
#include "sidecar/read_params.h"
#include "sidecar/server.h"

namespace kelp::sidecar {
namespace {

/// Of one connection in one turn. Requests that need no worker are answered at once, and a client
/// may send them without end.
constexpr int kMostRequests = 32;
constexpr int kMostDrained = 32;
/// In front of a request. What is left over from the one before is one or two.
constexpr std::size_t kMostEmptyLines = 8;
constexpr std::uint64_t kMostIterations = 10'000;
constexpr std::uint32_t kUsualIterations = 10;
constexpr std::uint32_t kUsualSize = 4096;
/// So much more is swallowed after the last answer before the connection is cut.
constexpr std::uint64_t kMostLingerBytes = 64 << 20;

std::string_view without_bearer(std::string_view authorization) {
  constexpr std::string_view kScheme = "bearer ";
  if (authorization.size() <= kScheme.size()) return {};
  for (std::size_t i = 0; i < kScheme.size(); ++i) {
    if ((authorization[i] | 0x20) != (kScheme[i] | 0x20)) return {};
  }
  return authorization.substr(kScheme.size());
}

/// What a client may have put there and a token or a server never holds.
bool is_plain(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

void Server::pump(Connection& connection) {
  if (connection.queued) return;  // soon
  for (int answered = 0; answered < kMostRequests;) {
    if (connection.lingers) return drain(connection);
    if (connection.exchange == nullptr) {
      if (!next_request(connection)) return;
      continue;
    }
    if (connection.exchange->broken) return close(connection);
    if (!connection.exchange->answering || !send(connection)) return;
    const bool keep = connection.exchange->keep_alive && !draining_;
    finish(connection);
    if (keep) {
      ++answered;
    } else {
      linger(connection);
    }
  }
  queue(connection);
}

/// Nothing more goes out to it. An end with bytes unread would be a reset, which takes what is on
/// its way with it; there may be some of any client that sends its requests ahead.
void Server::linger(Connection& connection) {
  ::shutdown(connection.socket.get(), SHUT_WR);
  connection.lingers = true;
  connection.readable = true;
  connection.input = std::string();
  connection.quiet_since = now_;
}

/// The next turn goes on with it. It has no event to wait for.
void Server::queue(Connection& connection) {
  connection.queued = true;
  queued_.push_back(connection_id(connection.index, connection.generation));
}

void Server::finish(Connection& connection) {
  recycle(std::move(connection.exchange));
  connection.quiet_since = now_;
  connection.blocked = false;
}

// ---- receiving ------------------------------------------------------------------------------

/// True: there is an exchange now. False: nothing to do, or the connection is gone.
bool Server::next_request(Connection& connection) {
  std::size_t used = 0;
  if (!connection.input.empty()) {
    if (take_head(connection, connection.input, used)) return drop_input(connection, used);
    connection.searched = connection.input.size();
  }
  while (connection.readable) {
    const ssize_t got = ::recv(connection.socket.get(), received_.get(), kReceiveBytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      connection.readable = false;
      if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return false;
      close(connection);  // the end, perhaps in the middle of a head
      return false;
    }
    const auto bytes = static_cast<std::size_t>(got);
    // The next ones are an event of their own; an end that is known to come is not.
    connection.readable = bytes == kReceiveBytes || connection.ending;
    if (connection.input.empty()) {
      const bool taken = take_head(connection, {received_.get(), bytes}, used);
      if (used < bytes) {
        connection.input.assign(received_.get() + used, bytes - used);
        connection.searched = taken ? 0 : bytes;
        if (!taken) connection.quiet_since = now_;
      }
      if (taken) return true;
      continue;
    }
    connection.input.append(received_.get(), bytes);
    if (take_head(connection, connection.input, used)) return drop_input(connection, used);
    connection.searched = connection.input.size();
  }
  return false;
}

/// The first bytes of it are an exchange now. Nothing is kept of it where nothing is left.
bool Server::drop_input(Connection& connection, std::size_t bytes) {
  connection.input.erase(0, bytes);
  if (connection.input.empty()) connection.input = std::string();
  connection.searched = 0;
  return true;
}

/// True: an exchange was made of the first `used` bytes.
bool Server::take_head(Connection& connection, std::span<char> bytes, std::size_t& used) {
  used = 0;
  // An empty line in front of a request is left over from the one before.
  std::span<char> rest = bytes;
  while (rest.size() >= 2 && rest[0] == '\r' && rest[1] == '\n') rest = rest.subspan(2);
  const std::size_t skipped = bytes.size() - rest.size();
  // They stay in the input until a head comes, so that its time runs from the first of them.
  if (skipped > 2 * kMostEmptyLines) {
    used = bytes.size();
    refuse(connection, 400, "there are too many empty lines in front of the request");
    return true;
  }
  const std::size_t searched = connection.searched > skipped ? connection.searched - skipped : 0;
  const std::size_t length = find_head_end({rest.data(), rest.size()}, searched);
  if (length == 0 ? rest.size() >= kMostHeadBytes : length > kMostHeadBytes) {
    used = bytes.size();
    const bool line_ends =
        std::string_view(rest.data(), kMostHeadBytes).find("\r\n") != std::string_view::npos;
    refuse(connection, line_ends ? 431 : 414,
           line_ends ? "the headers are longer than 16 KiB" : "the URL is longer than 16 KiB");
    return true;
  }
  if (length == 0) return false;
  used = skipped + length;
  begin(connection, rest.first(length));
  return true;
}

void Server::drain(Connection& connection) {
  for (int i = 0; i < kMostDrained; ++i) {
    if (!connection.readable) return;
    const ssize_t got = ::recv(connection.socket.get(), received_.get(), kReceiveBytes, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      connection.readable = false;
      return;
    }
    connection.swallowed += got > 0 ? static_cast<std::uint64_t>(got) : 0;
    if (got <= 0 || connection.swallowed > kMostLingerBytes) return close(connection);
  }
  queue(connection);
}

// ---- judging --------------------------------------------------------------------------------

Exchange& Server::new_exchange(Connection& connection) {
  if (spare_.empty()) {
    connection.exchange = std::make_unique<Exchange>();
  } else {
    connection.exchange = std::move(spare_.back());
    spare_.pop_back();
    *connection.exchange = Exchange{};
  }
  Exchange& exchange = *connection.exchange;
  exchange.keep_alive = !draining_;
  exchange.connection = connection.index;
  exchange.arrived = now_;
  counters_.requests.add();
  return exchange;
}

void Server::refuse(Connection& connection, int status, std::string_view sentence) {
  Exchange& exchange = new_exchange(connection);
  exchange.keep_alive = false;
  reads_.answer_error(exchange, status, sentence);
}

void Server::begin(Connection& connection, std::span<char> head) {
  const char* problem = "";
  const std::optional<RequestHead> request = parse_request_head(head, problem);
  if (!request) return refuse(connection, 400, problem);
  if (request->has_body) return refuse(connection, 400, "a request here has no body");
  Exchange& exchange = new_exchange(connection);
  exchange.head_only = request->method == Method::kHead;
  exchange.http_1_0 = request->http_1_0;
  exchange.keep_alive = exchange.keep_alive && request->keep_alive;
  const std::optional<Query> query = Query::parse(request->target, problem);
  if (!query) return reads_.answer_error(exchange, 400, problem);
  route(exchange, *request, *query);
}

void Server::route(Exchange& exchange, const RequestHead& head, const Query& query) {
  struct Route {
    std::string_view path;
    bool get, post, remove;
  };
  static constexpr std::array<Route, 9> kRoutes = {{{"/read", true, false, false},
                                                    {"/health", true, false, false},
                                                    {"/stats", true, false, false},
                                                    {"/benchmark", true, false, false},
                                                    {"/cleanup", false, false, true},
                                                    {"/", true, false, false},
                                                    {"/rdma/read", true, false, false},
                                                    {"/rdma/capabilities", true, false, false},
                                                    {"/rdma/ping", true, true, false}}};
  const auto* const found = std::find_if(
      kRoutes.begin(), kRoutes.end(), [&](const Route& each) { return each.path == query.path(); });
  if (found == kRoutes.end()) return reads_.answer_error(exchange, 404, "there is no such page");
  const bool allowed =
      (found->get && (head.method == Method::kGet || head.method == Method::kHead)) ||
      (found->post && head.method == Method::kPost) ||
      (found->remove && head.method == Method::kDelete);
  if (!allowed) {
    return reads_.answer_text(exchange, 405, kJsonType,
                              error_json("this method is not served here"),
                              found->remove ? "DELETE"
                              : found->post ? "GET, HEAD, POST"
                                            : "GET, HEAD");
  }
  if (query.path() == "/read" || query.path() == "/rdma/read") {
    return route_read(exchange, head, query);
  }
  if (query.path() == "/benchmark") return route_benchmark(exchange, query);
  if (query.path() == "/cleanup") return route_cleanup(exchange, query);
  if (query.path() == "/rdma/ping") {
    exchange.kind = Exchange::Kind::kPing;
    return reads_.begin(exchange);
  }
  route_page(exchange, query.path());
}

void Server::route_page(Exchange& exchange, std::string_view path) {
  const Condition now = condition();
  if (path == "/health") {
    reads_.answer_text(exchange, is_healthy(now) ? 200 : 503, kJsonType, health_json(now));
  } else if (path == "/stats") {
    reads_.answer_text(exchange, 200, kJsonType, stats_json(now));
  } else if (path == "/rdma/capabilities") {
    reads_.answer_text(exchange, 200, kJsonType, capabilities_json(now));
  } else {
    reads_.answer_text(exchange, 200, kHtmlType, front_page(now));
  }
}

void Server::route_read(Exchange& exchange, const RequestHead& head, const Query& query) {
  std::string problem;
  const std::optional<ReadParams> params = parse_read_params(query, problem);
  if (!params) return reads_.answer_error(exchange, 400, problem);
  const bool old_read = query.path() == "/rdma/read";
  exchange.kind = old_read ? Exchange::Kind::kRdmaRead : Exchange::Kind::kRead;
  exchange.fid = {static_cast<std::uint32_t>(params->fid.volume),
                  static_cast<std::uint32_t>(params->fid.cookie),
                  static_cast<std::uint64_t>(params->fid.needle)};
  exchange.offset = params->offset;
  exchange.size = params->size;
  exchange.json = params->json;
  if (!exchange.json) {
    exchange.range = head.range;
    exchange.if_none_match = head.if_none_match;
    exchange.if_modified_since = head.if_modified_since;
  }
  const std::string_view bearer = without_bearer(head.authorization);
  exchange.token = params->token.empty() ? bearer : params->token;
  // A hint that is none is not worth a refusal: the answer does not depend on it.
  if (is_plain(params->volume_server)) exchange.volume_server = params->volume_server;
  if (!is_plain(exchange.token)) {
    return reads_.answer_error(exchange, 400, "the token holds what no token holds");
  }
  reads_.begin(exchange);
}

void Server::route_benchmark(Exchange& exchange, const Query& query) {
  std::string problem;
  const std::optional<ReadParams> params = parse_read_params(query, problem);
  if (!params) return reads_.answer_error(exchange, 400, problem);
  const std::optional<std::string_view> wanted = query.find("iterations");
  const std::optional<std::uint64_t> iterations =
      wanted ? parse_decimal(*wanted) : std::optional<std::uint64_t>(kUsualIterations);
  if (!iterations || *iterations == 0 || *iterations > kMostIterations) {
    return reads_.answer_error(exchange, 400, "iterations is a number from 1 to 10000");
  }
  if (params->size > Buffers::kLargest) {
    return reads_.answer_error(exchange, 400, "size is at most 1048576 in a benchmark");
  }
  exchange.kind = Exchange::Kind::kBenchmark;
  exchange.fid = {static_cast<std::uint32_t>(params->fid.volume),
                  static_cast<std::uint32_t>(params->fid.cookie),
                  static_cast<std::uint64_t>(params->fid.needle)};
  exchange.offset = params->offset;
  exchange.size = params->size != 0 ? params->size : kUsualSize;
  exchange.iterations = static_cast<std::uint32_t>(*iterations);
  reads_.begin(exchange);
}

void Server::route_cleanup(Exchange& exchange, const Query& query) {
  constexpr std::array<std::string_view, 1> kName = {"temp_file"};
  const std::optional<std::string_view> file = query.find(kName[0]);
  if (!file || file->empty() || !query.repeated(kName).empty()) {
    return reads_.answer_error(exchange, 400, "temp_file names the file to remove, once");
  }
  switch (temp_files_ ? temp_files_->remove(*file) : TempFiles::Removal::kNotOurs) {
    case TempFiles::Removal::kRemoved:
      return reads_.answer_text(exchange, 200, kJsonType, cleanup_json(*file));
    case TempFiles::Removal::kGone:
      return reads_.answer_error(exchange, 404, "temp_file is gone already");
    case TempFiles::Removal::kNotOurs:
      return reads_.answer_error(exchange, 400, "temp_file is no file of this kelpd");
  }
}

Condition Server::condition() const {
  return {
      ring_.attached(),         options_.facts.get(),   &counters_, options_.mount_accepts, open_,
      options_.max_connections, temp_files_.has_value()};
}

// ---- sending --------------------------------------------------------------------------------

bool Server::send(Connection& connection) {
  Exchange& exchange = *connection.exchange;
  while (true) {
    std::array<iovec, 3> parts;
    std::size_t count = 0;
    const auto add = [&](const void* data, std::size_t bytes) {
      if (bytes != 0) parts[count++] = {const_cast<void*>(data), bytes};
    };
    add(exchange.head.data() + exchange.head_sent, exchange.head_bytes - exchange.head_sent);
    add(exchange.text.data() + exchange.text_sent, exchange.text.size() - exchange.text_sent);
    Piece& piece = exchange.pieces[exchange.sending];
    if (piece.ready) add(piece.slab->data + piece.sent, piece.bytes - piece.sent);
    if (count == 0) {
      connection.blocked = false;
      return exchange.all_sent();
    }
    msghdr message{};
    message.msg_iov = parts.data();
    message.msg_iovlen = count;
    const ssize_t sent = ::sendmsg(connection.socket.get(), &message, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      if (!connection.blocked) {
        connection.blocked = true;
        connection.window_start = connection.progress_at = now_;
        connection.window_taken = connection.progress_taken = taken(connection);
      }
      return false;
    }
    if (sent < 0) {
      close(connection);
      return false;
    }
    count_sent(connection, static_cast<std::size_t>(sent));
    if (exchange.broken) {
      close(connection);
      return false;
    }
    if (exchange.all_sent()) return true;
  }
}

void Server::count_sent(Connection& connection, std::size_t bytes) {
  Exchange& exchange = *connection.exchange;
  connection.sent += bytes;
  const auto of_head = std::min<std::size_t>(bytes, exchange.head_bytes - exchange.head_sent);
  exchange.head_sent += static_cast<std::uint32_t>(of_head);
  bytes -= of_head;
  const auto of_text = std::min(bytes, exchange.text.size() - exchange.text_sent);
  exchange.text_sent += of_text;
  bytes -= of_text;
  Piece& piece = exchange.pieces[exchange.sending];
  if (!piece.ready) return;
  piece.sent += static_cast<std::uint32_t>(bytes);
  exchange.body_left -= bytes;
  if (piece.sent == piece.bytes) reads_.piece_sent(exchange);
}

}  // namespace kelp::sidecar
