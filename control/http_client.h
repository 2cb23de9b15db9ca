// HTTP requests that keep nobody waiting: libcurl, driven from the caller's epoll loop.
// Every function, and what is called back, runs on the one thread that made it.
//
//   loop: epoll_wait on epoll_fd() for at most timeout(), then run().
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shm_ring/result.h"

namespace kelp {

struct HttpAnswer {
  int status = 0;          ///< 0: there is none; `error` says why
  std::string body;        ///< of a HEAD, or where a sink took it: empty
  std::string error;       ///< "Connection refused", ...
  bool reached = true;     ///< a connection was there
  bool timed_out = false;  ///< the deadline ended it
};

/// Status line and headers of an answer under way.
class HttpHead {
 public:
  virtual int status() const = 0;
  /// Of the last header of that name, whatever its case; empty where there is none.
  virtual std::string_view header(const char* name) const = 0;

 protected:
  ~HttpHead() = default;
};

/// Takes an answer as it comes.
class HttpSink {
 public:
  /// Once, before any of its body. False ends the request.
  virtual bool begin(const HttpHead& head) = 0;
  /// The next part of the body. False ends the request.
  virtual bool take(std::span<const std::byte> part) = 0;

 protected:
  ~HttpSink() = default;
};

struct HttpClientOptions {
  std::string ca_file;                       ///< trusted CAs in PEM; empty: the system's
  std::uint32_t connections_per_server = 0;  ///< 0: as many as there are requests
};

class HttpClient {
 public:
  static Result<HttpClient> create(const HttpClientOptions& options = {});
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;
  /// Requests under way end without being called back.
  ~HttpClient();

  enum class Method : std::uint8_t { kGet, kHead };
  struct Request {
    std::string url;  ///< http or https; no proxy is used and no redirect followed
    Method method = Method::kGet;
    std::chrono::milliseconds deadline{3000};  ///< for all of it
    std::size_t max_body_bytes = 1 << 20;      ///< a longer answer is an error; not with a sink
    std::chrono::milliseconds connect_deadline{3000};  ///< of that, for the connection
    std::vector<std::string> headers = {};             ///< "Range: bytes=0-4095"
    HttpSink* sink = nullptr;                          ///< takes the answer; outlives the request
  };
  using Ticket = std::uint64_t;  ///< never 0
  /// Asks. `done` is called once, from run().
  Ticket ask(Request request, std::function<void(HttpAnswer)> done);
  /// Ends a request: neither its `done` nor its sink is called any more. One that has ended is
  /// left alone. Not from within a sink.
  void cancel(Ticket ticket);

  /// Readable when run() has something to do; for the caller's epoll, level-triggered.
  int epoll_fd() const noexcept;
  /// Instead of an epoll of the caller's: sleeps until run() has something to do or `fd`, always
  /// the same one, is readable.
  void wait(int fd, std::chrono::milliseconds at_most);
  /// Goes on with what is ready. Never blocks.
  void run();
  /// When run() is due though epoll_fd() stays silent.
  std::optional<std::chrono::milliseconds> timeout() const;

 private:
  struct State;  // keeps <curl/curl.h> out of this header
  explicit HttpClient(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace kelp
