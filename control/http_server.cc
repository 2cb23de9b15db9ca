#include "control/http_server.h"

#include <fcntl.h>
#include <microhttpd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "control/log.h"
#include "control/log_limiter.h"
#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

using Clock = std::chrono::steady_clock;

// What libmicrohttpd hands back to us per request; the address is all that is used.
char kHeadersSeen;

MHD_Result keep_argument(void* query, MHD_ValueKind, const char* key, const char* value) {
  (*static_cast<std::map<std::string, std::string>*>(query))[key] = value != nullptr ? value : "";
  return MHD_YES;
}

/// Decodes %XX in place. A text with %00 stays as it is: the rest of it would be cut off, and
/// "/health%00x" would pass for "/health".
std::size_t unescape(void*, MHD_Connection*, char* text) {
  if (std::strstr(text, "%00") != nullptr) return std::strlen(text);
  return MHD_http_unescape(text);
}

bool has_body(MHD_Connection* connection) {
  const char* length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
  const char* coding =
      MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding");
  return coding != nullptr || (length != nullptr && std::strcmp(length, "0") != 0);
}

MHD_Result send_answer(MHD_Connection* connection, const HttpResponse& answer) {
  // MUST_COPY leaves the buffer alone: C gave it a type without const.
  MHD_Response* response = MHD_create_response_from_buffer(
      answer.body.size(), const_cast<char*>(answer.body.data()), MHD_RESPMEM_MUST_COPY);
  if (response == nullptr) return MHD_NO;  // out of memory: the connection is closed
  MHD_add_response_header(response, "Content-Type", answer.content_type.c_str());
  MHD_add_response_header(response, "Cache-Control", "no-store");
  if (!answer.allow.empty()) MHD_add_response_header(response, "Allow", answer.allow.c_str());
  const MHD_Result queued =
      MHD_queue_response(connection, static_cast<unsigned>(answer.status), response);
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

HttpResponse http_error(int status, std::string_view sentence) {
  HttpResponse answer;
  answer.status = status;
  answer.body = nlohmann::json{{"error", sentence}}.dump(-1, ' ', false,
                                                         nlohmann::json::error_handler_t::replace) +
                "\n";
  return answer;
}

struct HttpServer::State {
  ~State() {
    // libmicrohttpd aborts the program if connections are suspended when it stops.
    for (const auto& [connection, answer] : waiting) MHD_resume_connection(connection);
    waiting.clear();
    stopping = true;
    if (daemon != nullptr) MHD_stop_daemon(daemon);
  }

  HttpResponse ask_handler(MHD_Connection* connection, std::string method, const char* path) {
    HttpRequest request{std::move(method), path, {}};
    MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, keep_argument, &request.query);
    static LogLimiter limiter("control request", LogLevel::kDebug);
    if (limiter.allow()) {
      log_debug("control request", {{"method", request.method}, {"path", request.path}});
    }
    return handler(request);
  }

  /// Called anew for a connection that waited and was resumed.
  MHD_Result answer_or_wait(MHD_Connection* connection, std::string method, const char* path) {
    if (stopping) return MHD_NO;
    if (auto found = ready.extract(connection); !found.empty()) {
      return send_answer(connection, found.mapped());
    }
    HttpResponse answer = ask_handler(connection, std::move(method), path);
    if (!answer.later) return send_answer(connection, answer);
    waiting.emplace(connection, std::move(answer.later));
    MHD_suspend_connection(connection);
    return MHD_YES;
  }

  void resume_answered() {
    for (auto entry = waiting.begin(); entry != waiting.end();) {
      std::optional<HttpResponse> answer = entry->second();
      if (!answer) {
        ++entry;
        continue;
      }
      since[entry->first] = Clock::now();  // what it waited for us is not its own slowness
      ready.emplace(entry->first, std::move(*answer));
      MHD_resume_connection(entry->first);
      entry = waiting.erase(entry);
    }
  }

  /// Called once with the headers, then for each piece of a body, then once more at the end.
  static MHD_Result on_request(void* self, MHD_Connection* connection, const char* path,
                               const char* method, const char*, const char*,
                               std::size_t* upload_bytes, void** seen) {
    try {
      const std::string_view verb = method;
      const bool head = verb == "HEAD";
      if (!head && verb != "GET" && verb != "POST") {
        HttpResponse refusal = http_error(405, "this method is not served here");
        refusal.allow = "GET, HEAD, POST";
        return send_answer(connection, refusal);
      }
      if (has_body(connection)) {
        return send_answer(connection, http_error(400, "a request here has no body"));
      }
      if (*seen == nullptr) {
        // An answer queued already here would cost the client its connection.
        *seen = &kHeadersSeen;
        return MHD_YES;
      }
      *upload_bytes = 0;
      return static_cast<State*>(self)->answer_or_wait(connection, head ? "GET" : method, path);
    } catch (const std::exception& error) {
      return send_answer(connection, http_error(500, error.what()));
    }
  }

  static void on_connection(void* self, MHD_Connection* connection, void**,
                            MHD_ConnectionNotificationCode what) {
    auto& since = static_cast<State*>(self)->since;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
      since[connection] = Clock::now();
    } else {
      since.erase(connection);
      static_cast<State*>(self)->ready.erase(connection);
    }
  }

  static void on_completed(void* self, MHD_Connection* connection, void**,
                           MHD_RequestTerminationCode) {
    auto& since = static_cast<State*>(self)->since;
    if (const auto found = since.find(connection); found != since.end()) {
      found->second = Clock::now();
    }
  }

  Result<void> start(int listen_fd) {
    UniqueFd fd(::fcntl(listen_fd, F_DUPFD_CLOEXEC, 0));
    if (!fd) return system_error("cannot serve HTTP: no descriptor for the control socket");
    if (::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK) != 0) {
      return system_error("cannot serve HTTP: the control socket cannot be made non-blocking");
    }
    daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, nullptr, nullptr, &on_request, this,
        MHD_OPTION_LISTEN_SOCKET, fd.get(), MHD_OPTION_CONNECTION_LIMIT, limits.connections,
        MHD_OPTION_CONNECTION_TIMEOUT, static_cast<unsigned>(limits.silence.count()),
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, static_cast<std::size_t>(limits.request_bytes),
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK, &unescape, nullptr,
        MHD_OPTION_NOTIFY_CONNECTION, &on_connection, this, MHD_OPTION_NOTIFY_COMPLETED,
        &on_completed, this, MHD_OPTION_END);
    if (daemon == nullptr) {
      return system_error("cannot serve HTTP: libmicrohttpd does not start on the control socket");
    }
    (void)fd.release();  // MHD_stop_daemon closes it
    return {};
  }

  /// libmicrohttpd counts silence only: a client that sends a byte now and then would stay for
  /// ever. Its next run finds the connection hung up and frees it.
  void hang_up_slow_ones() {
    const Clock::time_point now = Clock::now();
    for (auto& [connection, started] : since) {
      if (now - started < limits.request || waiting.contains(connection)) continue;
      const MHD_ConnectionInfo* info =
          MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
      if (info != nullptr) ::shutdown(info->connect_fd, SHUT_RDWR);
      started = now;
    }
  }

  HttpHandler handler;
  HttpLimits limits;
  MHD_Daemon* daemon = nullptr;
  std::unordered_map<MHD_Connection*, Clock::time_point> since;  ///< last answer, or the start
  std::unordered_map<MHD_Connection*, std::function<std::optional<HttpResponse>()>> waiting;
  std::unordered_map<MHD_Connection*, HttpResponse> ready;  ///< for those that are resumed
  bool stopping = false;
};

HttpServer::HttpServer(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpServer::HttpServer(HttpServer&&) noexcept = default;
HttpServer& HttpServer::operator=(HttpServer&&) noexcept = default;
HttpServer::~HttpServer() = default;

Result<HttpServer> HttpServer::create(int listen_fd, HttpHandler handler, HttpLimits limits) {
  auto state = std::make_unique<State>();
  state->handler = std::move(handler);
  state->limits = limits;
  if (Result<void> started = state->start(listen_fd); !started) {
    return tl::unexpected(started.error());
  }
  return HttpServer(std::move(state));
}

int HttpServer::epoll_fd() const noexcept {
  return MHD_get_daemon_info(state_->daemon, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
}

void HttpServer::run() {
  state_->resume_answered();
  MHD_run(state_->daemon);
  state_->hang_up_slow_ones();
}

std::optional<std::chrono::milliseconds> HttpServer::timeout() const {
  std::optional<std::chrono::milliseconds> due;
  MHD_UNSIGNED_LONG_LONG theirs_ms = 0;
  if (MHD_get_timeout(state_->daemon, &theirs_ms) == MHD_YES) {
    due = std::chrono::milliseconds(theirs_ms);
  }
  const Clock::time_point now = Clock::now();
  for (const auto& [connection, started] : state_->since) {
    if (state_->waiting.contains(connection)) continue;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(started + state_->limits.request - now);
    const auto ours = std::max(left, std::chrono::milliseconds(0));
    due = due ? std::min(*due, ours) : ours;
  }
  return due;
}

}  // namespace kelp
