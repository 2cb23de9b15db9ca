// One connection to an HTTP server. Libcurl makes it, with names, addresses and TLS, and is out of
// the way afterwards: what is sent and received costs the system calls it needs, and little else
// (docs/architecture.md has the figures).
#pragma once

#include <curl/curl.h>

#include <chrono>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "control/http_answer.h"

namespace kelp {

class HttpConnection {
 public:
  using Clock = std::chrono::steady_clock;

  /// Begins to connect to `base`, "http://host:port". The end of that is a message of `multi`,
  /// whose private pointer is this. Throws std::bad_alloc.
  HttpConnection(CURLM* multi, const std::string& base, const std::string& ca_file,
                 std::chrono::milliseconds connect_deadline);
  ~HttpConnection();
  HttpConnection(const HttpConnection&) = delete;
  HttpConnection& operator=(const HttpConnection&) = delete;

  /// It is connected. False: its socket cannot be had.
  bool established();
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

  enum class Arrival : std::uint8_t { kSome, kNothing, kEnd, kFailed };
  Arrival read_socket(std::size_t& bytes);
  Received end_of_stream();

  CURLM* const multi_;
  const bool tls_;
  int socket_ = -1;
  std::unique_ptr<CURL, Cleanup> handle_;
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
