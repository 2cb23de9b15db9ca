// HTTP requests that keep nobody waiting: libcurl, driven from the caller's epoll loop.
// Every function, and what is called back, runs on the control thread.
//
//   loop: epoll_wait on epoll_fd() for at most timeout(), then run().
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "shm_ring/result.h"

namespace kelp {

struct HttpAnswer {
  int status = 0;     ///< 0: there is none; `error` says why
  std::string body;   ///< of a HEAD: empty
  std::string error;  ///< "Connection refused", ...
};

class HttpClient {
 public:
  static Result<HttpClient> create();
  HttpClient(HttpClient&&) noexcept;
  HttpClient& operator=(HttpClient&&) noexcept;
  /// Requests under way end without being called back.
  ~HttpClient();

  enum class Method : std::uint8_t { kGet, kHead };
  struct Request {
    std::string url;  ///< http or https; no proxy is used and no redirect followed
    Method method = Method::kGet;
    std::chrono::milliseconds deadline{3000};  ///< for all of it
    std::size_t max_body_bytes = 1 << 20;      ///< a longer answer is an error
  };
  /// Asks. `done` is called once, from run().
  void ask(Request request, std::function<void(HttpAnswer)> done);

  /// Readable when run() has something to do; for the caller's epoll, level-triggered.
  int epoll_fd() const noexcept;
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
