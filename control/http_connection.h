// One connection to an HTTP server. Libcurl makes it, with names, addresses and TLS, and is out of
// the way afterwards: what is sent and received costs the system calls it needs, and little else
// (docs/architecture.md has the figures).
//
// Each has a multi handle of its own, and without TLS keeps a socket that libcurl knows nothing of.
// Of connections that share one libcurl thinks the idle ones are its to close, as it does whenever
// it makes another: sockets would be closed, and their numbers used again, under whoever uses them.
#pragma once

#include <curl/curl.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "control/http_answer.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class HttpConnection {
 public:
  using Clock = std::chrono::steady_clock;

  /// Watches sockets while libcurl connects.
  class Watcher {
   public:
    /// EPOLLIN, EPOLLOUT. False: it cannot be.
    virtual bool watch(int socket, std::uint32_t events, HttpConnection* connection) = 0;
    virtual void unwatch(int socket) = 0;

   protected:
    ~Watcher() = default;
  };

  /// Connects to `base`, "http://host:port": by go_on(). Throws std::bad_alloc.
  HttpConnection(Watcher& watcher, const std::string& base, const std::string& ca_file,
                 std::chrono::milliseconds connect_deadline);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  enum class Connecting : std::uint8_t { kMore, kDone, kFailed };
  /// Goes on connecting: `socket` is ready for CURL_CSELECT_*, or due() has come and it is
  /// CURL_SOCKET_TIMEOUT.
  Connecting go_on(int socket, int ready);
  std::optional<Clock::time_point> due() const noexcept { return due_; }
  /// Why it failed.
  CURLcode failure() const noexcept { return failure_; }
  /// Once connected; before that -1.
  int socket() const noexcept { return socket_; }

  /// Sends as much of `request` as goes. An error shows when the socket is read.
  void send(std::string request);
  /// What did not go yet; once the socket is writable.
  void send_rest();
  bool sends() const noexcept { return sent_ < outgoing_.size(); }

  enum class Received : std::uint8_t {
    kMore,     ///< nothing is there now
    kPending,  ///< there is more, and nothing will say so: come again
    kDone,     ///< the answer is complete
    kRefused,  ///< its receiver wants no more
    kBroken,   ///< see error()
    kClosed,   ///< by the peer, before the answer began
  };
  /// Takes what has arrived of the answer.
  Received receive();

  HttpAnswerParser& answer() noexcept { return answer_; }
  const std::string& error() const noexcept { return error_; }
  /// Nothing is left of the answer, and the server wants to go on.
  bool reusable() const { return !sends() && begin_ == end_ && answer_.may_keep_connection(); }

  // The pool's.
  std::uint64_t ticket = 0;  ///< of the request on it; 0: none
  bool used_before = false;  ///< for a request that ended
  Clock::time_point idle_since{};

 private:
  struct Cleanup {
    void operator()(CURL* handle) const noexcept { ::curl_easy_cleanup(handle); }
  };
  struct MultiCleanup {
    void operator()(CURLM* handle) const noexcept { ::curl_multi_cleanup(handle); }
  };

  static int watch_of_libcurl(CURL*, curl_socket_t socket, int what, void* context, void*);
  static int timer_of_libcurl(CURLM*, long timeout_ms, void* context);
  bool take_socket();
  void let_go_of_libcurl() noexcept;

  enum class Arrival : std::uint8_t { kSome, kNothing, kEnd, kFailed };
  Arrival read_socket(std::size_t& bytes);
  Received end_of_stream();

  Watcher& watcher_;
  const bool tls_;
  std::optional<Clock::time_point> due_;  // libcurl's timer
  CURLcode failure_ = CURLE_OK;
  int socket_ = -1;  // libcurl's, or
  UniqueFd own_;     // ours
  std::unique_ptr<CURLM, MultiCleanup> multi_;
  std::unique_ptr<CURL, Cleanup> handle_;  // ends before `multi_`; none: libcurl is out of the way
  std::string outgoing_;
  std::size_t sent_ = 0;
  std::vector<std::byte> buffer_;  // [begin_, end_) is unread
  std::size_t begin_ = 0;
  std::size_t end_ = 0;
  bool began_ = false;  // some of the answer has arrived
  HttpAnswerParser answer_;
  std::string error_;
};

}  // namespace kelp
