#include "control/http_connection.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

namespace kelp {
namespace {

constexpr std::size_t kBufferBytes = 16 * 1024;
/// Read before others have their turn.
constexpr int kReadsPerTurn = 16;

}  // namespace

HttpConnection::HttpConnection(Watcher& watcher, const std::string& base,
                               const std::string& ca_file,
                               std::chrono::milliseconds connect_deadline)
    : watcher_(watcher),
      tls_(base.starts_with("https:")),
      multi_(::curl_multi_init()),
      handle_(::curl_easy_init()),
      buffer_(kBufferBytes) {
  CURL* const handle = handle_.get();
  if (multi_ == nullptr || handle == nullptr) throw std::bad_alloc();
  ::curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETFUNCTION, watch_of_libcurl);
  ::curl_multi_setopt(multi_.get(), CURLMOPT_SOCKETDATA, this);
  ::curl_multi_setopt(multi_.get(), CURLMOPT_TIMERFUNCTION, timer_of_libcurl);
  ::curl_multi_setopt(multi_.get(), CURLMOPT_TIMERDATA, this);
  ::curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  ::curl_easy_setopt(handle, CURLOPT_PROXY, "");  // the environment is no source of settings
  ::curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  // To give up a name that is being looked up does not wait for its thread.
  ::curl_easy_setopt(handle, CURLOPT_QUICK_EXIT, 1L);
  ::curl_easy_setopt(handle, CURLOPT_TCP_KEEPALIVE, 1L);
  ::curl_easy_setopt(handle, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
  ::curl_easy_setopt(handle, CURLOPT_SSL_ENABLE_ALPN, 0L);
  ::curl_easy_setopt(handle, CURLOPT_CONNECT_ONLY, 1L);
  ::curl_easy_setopt(handle, CURLOPT_URL, base.c_str());
  if (!ca_file.empty()) ::curl_easy_setopt(handle, CURLOPT_CAINFO, ca_file.c_str());
  ::curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS,
                     static_cast<long>(connect_deadline.count()));
  if (::curl_multi_add_handle(multi_.get(), handle) != CURLM_OK) throw std::bad_alloc();
}

HttpConnection::~HttpConnection() {
  let_go_of_libcurl();
}

/// It closes its socket.
void HttpConnection::let_go_of_libcurl() noexcept {
  if (handle_ != nullptr) ::curl_multi_remove_handle(multi_.get(), handle_.get());
  handle_.reset();
  multi_.reset();
  due_.reset();
}

int HttpConnection::watch_of_libcurl(CURL*, curl_socket_t socket, int what, void* context, void*) {
  auto* const connection = static_cast<HttpConnection*>(context);
  if (what == CURL_POLL_REMOVE) {
    connection->watcher_.unwatch(socket);
    return 0;
  }
  std::uint32_t events = 0;
  if ((what & CURL_POLL_IN) != 0) events |= EPOLLIN;
  if ((what & CURL_POLL_OUT) != 0) events |= EPOLLOUT;
  return connection->watcher_.watch(socket, events, connection) ? 0 : -1;
}

int HttpConnection::timer_of_libcurl(CURLM*, long timeout_ms, void* context) {
  auto& due = static_cast<HttpConnection*>(context)->due_;
  due.reset();
  if (timeout_ms >= 0) due = Clock::now() + std::chrono::milliseconds(timeout_ms);
  return 0;
}

HttpConnection::Connecting HttpConnection::go_on(int socket, int ready) {
  if (socket == CURL_SOCKET_TIMEOUT) due_.reset();
  int running = 0;
  ::curl_multi_socket_action(multi_.get(), socket, ready, &running);
  int left = 0;
  const CURLMsg* const message = ::curl_multi_info_read(multi_.get(), &left);
  if (message == nullptr || message->msg != CURLMSG_DONE) return Connecting::kMore;
  failure_ = message->data.result;
  if (failure_ == CURLE_OK && !take_socket()) failure_ = CURLE_COULDNT_CONNECT;
  due_.reset();
  return failure_ == CURLE_OK ? Connecting::kDone : Connecting::kFailed;
}

bool HttpConnection::take_socket() {
  curl_socket_t socket = CURL_SOCKET_BAD;
  if (::curl_easy_getinfo(handle_.get(), CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK ||
      socket < 0) {
    return false;
  }
  socket_ = socket;
  if (tls_) return true;
  own_ = UniqueFd(::fcntl(socket, F_DUPFD_CLOEXEC, 0));
  let_go_of_libcurl();
  socket_ = own_.get();
  return socket_ >= 0;
}

void HttpConnection::send(std::string request) {
  outgoing_ = std::move(request);
  sent_ = 0;
  began_ = false;
  begin_ = end_ = 0;
  send_rest();
}

void HttpConnection::send_rest() {
  while (sends()) {
    const char* const from = outgoing_.data() + sent_;
    const std::size_t left = outgoing_.size() - sent_;
    std::size_t went = 0;
    if (tls_) {
      if (::curl_easy_send(handle_.get(), from, left, &went) != CURLE_OK) return;
    } else {
      const ssize_t count = ::send(socket_, from, left, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return;
      went = static_cast<std::size_t>(count);
    }
    sent_ += went;
  }
}

HttpConnection::Arrival HttpConnection::read_socket(std::size_t& bytes) {
  std::byte* const to = buffer_.data() + end_;
  const std::size_t room = buffer_.size() - end_;
  if (tls_) {
    switch (const CURLcode code = ::curl_easy_recv(handle_.get(), to, room, &bytes)) {
      case CURLE_OK:
        return bytes > 0 ? Arrival::kSome : Arrival::kEnd;
      case CURLE_AGAIN:
        return Arrival::kNothing;
      default:
        error_ = ::curl_easy_strerror(code);
        return Arrival::kFailed;
    }
  }
  ssize_t count = 0;
  do count = ::recv(socket_, to, room, MSG_DONTWAIT);
  while (count < 0 && errno == EINTR);
  if (count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return Arrival::kNothing;
  if (count < 0) {
    error_ = std::strerror(errno);
    return Arrival::kFailed;
  }
  bytes = static_cast<std::size_t>(count);
  return count > 0 ? Arrival::kSome : Arrival::kEnd;
}

HttpConnection::Received HttpConnection::receive() {
  for (int reads = 0; reads < kReadsPerTurn; ++reads) {
    // A head that does not fit; the parser sets its limit.
    if (end_ == buffer_.size() && begin_ == 0) buffer_.resize(2 * buffer_.size());
    const std::size_t room = buffer_.size() - end_;
    std::size_t bytes = 0;
    switch (read_socket(bytes)) {
      case Arrival::kNothing:
        return Received::kMore;
      case Arrival::kEnd:
        return end_of_stream();
      case Arrival::kFailed:
        return began_ ? Received::kBroken : Received::kClosed;
      case Arrival::kSome:
        break;
    }
    began_ = true;
    end_ += bytes;
    std::size_t taken = 0;
    const auto state = answer_.take(std::span(buffer_).subspan(begin_, end_ - begin_), taken);
    begin_ += taken;
    switch (state) {
      case HttpAnswerParser::State::kDone:
        return Received::kDone;
      case HttpAnswerParser::State::kRefused:
        return Received::kRefused;
      case HttpAnswerParser::State::kBroken:
        error_ = answer_.error();
        return Received::kBroken;
      case HttpAnswerParser::State::kMore:
        break;
    }
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
    // The socket was emptied: it tells when there is more, which TLS does not.
    if (!tls_ && bytes < room) return Received::kMore;
  }
  return tls_ ? Received::kPending : Received::kMore;
}

HttpConnection::Received HttpConnection::end_of_stream() {
  if (!began_) {
    error_ = "it closes the connection without an answer";
    return Received::kClosed;
  }
  if (answer_.take_end() == HttpAnswerParser::State::kDone) return Received::kDone;
  error_ = answer_.error();
  return Received::kBroken;
}

}  // namespace kelp
