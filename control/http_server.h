// HTTP/1.1 on a listening socket, driven from the caller's epoll loop: no thread of its own.
// Every function, and the handler, runs on the control thread.
//
//   loop: epoll_wait on epoll_fd() for at most timeout(), then run().
//
// Bounds: 64 connections (more wait in the backlog), 5 s of silence, 10 s for one request and its
// answer, 16 KiB for a request's line and headers. A request with a body is refused.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "shm_ring/result.h"

namespace kelp {

struct HttpRequest {
  std::string method;  ///< "GET" or "POST"; a HEAD comes as GET and its body is not sent
  std::string path;    ///< decoded, as the client wrote it: ".." is nothing special
  std::map<std::string, std::string> query;  ///< decoded; of a name given twice, the last
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body = {};
  std::string allow = {};  ///< of a 405: the methods that would do
  /// Set: the answer is not there yet. Asked at each run() until there is one; whoever makes it
  /// sees to it that run() comes about. The rest of this response is not used.
  std::function<std::optional<HttpResponse>()> later = {};
};

using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

/// {"error": "..."} under that status.
HttpResponse http_error(int status, std::string_view sentence);

struct HttpLimits {
  std::uint32_t connections = 64;
  std::chrono::seconds silence{5};            ///< nothing sent or received
  std::chrono::milliseconds request{10'000};  ///< from one answer to the next, trickling or not
  std::uint32_t request_bytes = 16 * 1024;    ///< request line and headers
};

class HttpServer {
 public:
  /// Serves connections of `listen_fd`, which stays the caller's (it is duplicated) and becomes
  /// non-blocking. A handler must not block; what it throws becomes a 500.
  static Result<HttpServer> create(int listen_fd, HttpHandler handler, HttpLimits limits = {});

  HttpServer(HttpServer&&) noexcept;
  HttpServer& operator=(HttpServer&&) noexcept;
  ~HttpServer();

  /// Readable when run() has something to do; for the caller's epoll, level-triggered.
  int epoll_fd() const noexcept;

  /// Serves what is ready, and closes connections that are too slow. Never blocks.
  void run();

  /// When run() is due though epoll_fd() stays silent. Nothing: not before a connection comes.
  std::optional<std::chrono::milliseconds> timeout() const;

 private:
  struct State;  // keeps <microhttpd.h> out of this header
  explicit HttpServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kelp
