// One HTTP/1.1 keep-alive connection with plain blocking sockets: the yardstick Kelp is held
// against by kelp-bench and the benchmarks, and the writer of the live test. As little work per
// request as HTTP allows (one send, TCP_NODELAY, only the header fields it needs);
// scripts/bench/read.sh compares its latency with wrk's. One thread at a time. Not a general
// client: Content-Length bodies only, no redirects, no TLS, no second try.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "shm_ring/result.h"

namespace kelp::bench {

struct HttpResponse {
  int status = 0;
  std::span<const char> body;  ///< valid until the connection's next request
};

class HttpConnection {
 public:
  /// `server` is "address:port", IPv4 in digits. Every send and receive is given up after 60 s.
  static Result<HttpConnection> open(const std::string& server);

  HttpConnection(HttpConnection&& other) noexcept;
  HttpConnection& operator=(HttpConnection&& other) noexcept;
  ~HttpConnection();

  /// `path` starts with '/'. An error means the connection is of no further use.
  Result<HttpResponse> get(std::string_view path);
  /// The two halves of get(), for a thread that waits for several connections at once.
  /// `headers` are more header lines, each with its "\r\n".
  Result<void> send_get(std::string_view path, std::string_view headers = {});
  Result<HttpResponse> receive();
  int fd() const noexcept { return fd_; }  ///< to poll for the answer

  Result<HttpResponse> remove(std::string_view path);  ///< DELETE
  Result<HttpResponse> send(std::string_view method, std::string_view path,
                            std::string_view content_type, std::span<const char> body);

 private:
  HttpConnection(int fd, std::string server);

  Result<void> send_all(std::span<const char> bytes);
  Result<HttpResponse> receive_chunks(int status, std::size_t begin);
  Result<void> receive_up_to(std::size_t total);
  Result<std::size_t> receive_some();

  int fd_ = -1;
  std::string server_;
  std::string request_;
  std::vector<char> buffer_;  // grows to the largest answer and stays
  std::size_t received_ = 0;  // bytes of buffer_ that hold the answer so far
};

}  // namespace kelp::bench
