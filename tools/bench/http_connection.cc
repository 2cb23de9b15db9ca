#include "tools/bench/http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <charconv>
#include <cstring>
#include <utility>

namespace kelp::bench {
namespace {

constexpr std::size_t kFirstBufferBytes = 64 << 10;

struct Header {
  int status = 0;
  std::size_t header_bytes = 0;
  std::size_t body_bytes = 0;
  bool chunked = false;
};

/// Value of "<name>: <value>" in `header`, "" where it is missing. `name` in lower case.
std::string_view field(std::string_view header, std::string_view name) {
  for (std::size_t line = header.find("\r\n"); line != std::string_view::npos;
       line = header.find("\r\n", line)) {
    line += 2;
    const std::string_view rest = header.substr(line);
    if (rest.size() <= name.size() || rest[name.size()] != ':') continue;
    if (strncasecmp(rest.data(), name.data(), name.size()) != 0) continue;
    std::string_view value = rest.substr(name.size() + 1);
    value = value.substr(0, value.find("\r\n"));
    while (value.starts_with(' ')) value.remove_prefix(1);
    return value;
  }
  return {};
}

Result<Header> parse_header(std::string_view text) {
  constexpr std::string_view kProtocol = "HTTP/1.1 ";
  Header header{.header_bytes = text.size()};
  if (!text.starts_with(kProtocol)) return plain_error("the answer is not HTTP/1.1");
  const char* digits = text.data() + kProtocol.size();
  std::from_chars(digits, text.data() + text.size(), header.status);
  if (header.status == 204 || header.status == 304) return header;
  const std::string_view length = field(text, "content-length");
  if (length.empty() && field(text, "transfer-encoding") == "chunked") {
    header.chunked = true;
    return header;
  }
  if (std::from_chars(length.begin(), length.end(), header.body_bytes).ec != std::errc{}) {
    return plain_error("an answer without Content-Length: " + std::string(text.substr(0, 200)));
  }
  return header;
}

}  // namespace

Result<HttpConnection> HttpConnection::open(const std::string& server) {
  const std::size_t colon = server.rfind(':');
  sockaddr_in address{};
  address.sin_family = AF_INET;
  std::uint16_t port = 0;
  if (colon == std::string::npos ||
      inet_pton(AF_INET, server.substr(0, colon).c_str(), &address.sin_addr) != 1 ||
      std::from_chars(server.data() + colon + 1, server.data() + server.size(), port).ec !=
          std::errc{}) {
    return plain_error("not an IPv4 address and port: " + server);
  }
  address.sin_port = htons(port);
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return system_error("cannot make a socket");
  HttpConnection connection(fd, server);
  const int on = 1;
  const timeval limit{.tv_sec = 60, .tv_usec = 0};
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return system_error("cannot connect to " + server);
  }
  return connection;
}

HttpConnection::HttpConnection(int fd, std::string server)
    : fd_(fd), server_(std::move(server)), buffer_(kFirstBufferBytes) {}

HttpConnection::HttpConnection(HttpConnection&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      server_(std::move(other.server_)),
      request_(std::move(other.request_)),
      buffer_(std::move(other.buffer_)),
      received_(other.received_) {}

HttpConnection& HttpConnection::operator=(HttpConnection&& other) noexcept {
  std::swap(fd_, other.fd_);
  std::swap(server_, other.server_);
  std::swap(request_, other.request_);
  std::swap(buffer_, other.buffer_);
  std::swap(received_, other.received_);
  return *this;
}

HttpConnection::~HttpConnection() {
  if (fd_ >= 0) close(fd_);
}

Result<HttpResponse> HttpConnection::get(std::string_view path) {
  if (auto sent = send_get(path); !sent) return tl::unexpected(sent.error());
  return receive();
}

Result<void> HttpConnection::send_get(std::string_view path, std::string_view headers) {
  request_.assign("GET ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: ")
      .append(server_)
      .append("\r\n")
      .append(headers)
      .append("\r\n");
  return send_all(request_);
}

Result<HttpResponse> HttpConnection::remove(std::string_view path) {
  request_.assign("DELETE ")
      .append(path)
      .append(" HTTP/1.1\r\nHost: ")
      .append(server_)
      .append("\r\n\r\n");
  if (auto sent = send_all(request_); !sent) return tl::unexpected(sent.error());
  return receive();
}

Result<HttpResponse> HttpConnection::send(std::string_view method, std::string_view path,
                                          std::string_view content_type,
                                          std::span<const char> body) {
  request_.assign(method).append(" ").append(path).append(" HTTP/1.1\r\nHost: ").append(server_);
  request_.append("\r\nContent-Type: ").append(content_type);
  request_.append("\r\nContent-Length: ").append(std::to_string(body.size())).append("\r\n\r\n");
  request_.append(body.data(), body.size());
  if (auto sent = send_all(request_); !sent) return tl::unexpected(sent.error());
  return receive();
}

Result<void> HttpConnection::send_all(std::span<const char> bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return system_error("cannot send to " + server_);
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
  return {};
}

Result<std::size_t> HttpConnection::receive_some() {
  const ssize_t got = recv(fd_, buffer_.data() + received_, buffer_.size() - received_, 0);
  if (got < 0) return system_error("cannot receive from " + server_);
  if (got == 0) return plain_error(server_ + " closed the connection");
  received_ += static_cast<std::size_t>(got);
  return static_cast<std::size_t>(got);
}

Result<HttpResponse> HttpConnection::receive() {
  received_ = 0;
  std::size_t end = std::string_view::npos;
  while (end == std::string_view::npos) {
    if (received_ == buffer_.size()) return plain_error("an endless header from " + server_);
    if (auto got = receive_some(); !got) return tl::unexpected(got.error());
    end = std::string_view(buffer_.data(), received_).find("\r\n\r\n");
  }
  const Result<Header> header = parse_header({buffer_.data(), end + 4});
  if (!header) return tl::unexpected(header.error());
  if (header->chunked) return receive_chunks(header->status, header->header_bytes);
  const std::size_t total = header->header_bytes + header->body_bytes;
  if (auto got = receive_up_to(total); !got) return tl::unexpected(got.error());
  return HttpResponse{.status = header->status,
                      .body = std::span(buffer_).subspan(header->header_bytes, header->body_bytes)};
}

Result<void> HttpConnection::receive_up_to(std::size_t total) {
  if (total > buffer_.size()) buffer_.resize(total);
  while (received_ < total) {
    if (auto got = receive_some(); !got) return tl::unexpected(got.error());
  }
  return {};
}

/// Moves the chunks together, over their own framing: "<hex length>\r\n<bytes>\r\n" ...
/// "0\r\n\r\n".
Result<HttpResponse> HttpConnection::receive_chunks(int status, std::size_t begin) {
  std::size_t next = begin, end = begin;
  while (true) {
    std::size_t line = std::string_view(buffer_.data(), received_).find("\r\n", next);
    while (line == std::string_view::npos) {
      if (auto got = receive_up_to(received_ + 1); !got) return tl::unexpected(got.error());
      line = std::string_view(buffer_.data(), received_).find("\r\n", next);
    }
    std::size_t length = 0;
    if (std::from_chars(buffer_.data() + next, buffer_.data() + line, length, 16).ec !=
        std::errc{}) {
      return plain_error("a chunk without a length from " + server_);
    }
    next = line + 2;
    if (auto got = receive_up_to(next + length + 2); !got) return tl::unexpected(got.error());
    if (length == 0) break;
    std::memmove(buffer_.data() + end, buffer_.data() + next, length);
    end += length;
    next += length + 2;
  }
  return HttpResponse{.status = status, .body = std::span(buffer_).subspan(begin, end - begin)};
}

}  // namespace kelp::bench
