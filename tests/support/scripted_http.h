// HTTP servers of 127.0.0.1 that answer as a test says: well, late, wrongly, byte by byte or not at
// all. Real sockets, a thread per connection.
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <charconv>
#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace kelp::test {

/// A port of 127.0.0.1; nobody listens there, so whoever connects is refused.
struct BoundPort {
  UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::uint16_t port = 0;

  BoundPort() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof address;
    if (::bind(fd.get(), plain, length) != 0 || ::getsockname(fd.get(), plain, &length) != 0) {
      throw std::runtime_error("cannot bind to 127.0.0.1");
    }
    port = ::ntohs(address.sin_port);
  }
  std::string address() const { return "127.0.0.1:" + std::to_string(port); }
};

/// A whole answer, with its Content-Length.
inline std::string http_reply(int status, const std::vector<std::string>& headers = {},
                              std::string_view body = {}) {
  std::string text = "HTTP/1.1 " + std::to_string(status) + " X\r\n";
  for (const std::string& each : headers) text += each + "\r\n";
  text += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n";
  return text.append(body);
}

class ScriptedHttp {
 public:
  struct Asked {
    std::string method;
    std::string target;
    std::string head;  ///< all of it

    /// Empty where there is none.
    std::string header(std::string_view name) const {
      std::size_t at = 0;
      while ((at = head.find("\r\n", at)) != std::string::npos) {
        at += 2;
        const std::size_t end = head.find("\r\n", at);
        const std::string_view line = std::string_view(head).substr(at, end - at);
        if (line.size() > name.size() + 1 && line[name.size()] == ':' &&
            std::ranges::equal(line.substr(0, name.size()), name,
                               [](char a, char b) { return std::tolower(a) == std::tolower(b); })) {
          return std::string(line.substr(line.find_first_not_of(' ', name.size() + 1)));
        }
      }
      return {};
    }
  };

  /// The other end of a connection.
  class Peer {
   public:
    explicit Peer(int fd) : fd_(fd) {}
    /// False: it has gone.
    bool send(std::string_view text) {
      while (!text.empty()) {
        const ssize_t sent = ::send(fd_, text.data(), text.size(), MSG_NOSIGNAL);
        if (sent <= 0) return false;
        text.remove_prefix(static_cast<std::size_t>(sent));
      }
      return true;
    }
    /// Until it hangs up, or the server ends.
    void stall() {
      pollfd source{fd_, POLLRDHUP, 0};
      ::poll(&source, 1, -1);
    }
    void hang_up() { ::shutdown(fd_, SHUT_RDWR); }

   private:
    int fd_;
  };

  /// Called on the connection's thread for each request.
  using Script = std::function<void(Peer&, const Asked&)>;

  explicit ScriptedHttp(Script script) : script_(std::move(script)) {
    if (::listen(bound_.fd.get(), 512) != 0) throw std::runtime_error("cannot listen");
    accepting_ = std::thread([this] { accept_all(); });
  }
  ScriptedHttp(const ScriptedHttp&) = delete;
  ScriptedHttp& operator=(const ScriptedHttp&) = delete;
  ~ScriptedHttp() {
    ::shutdown(bound_.fd.get(), SHUT_RDWR);
    accepting_.join();
    {
      const std::lock_guard lock(mutex_);
      for (Connection& each : connections_) ::shutdown(each.fd.get(), SHUT_RDWR);
    }
    for (Connection& each : connections_) each.thread.join();
  }

  std::string address() const { return bound_.address(); }
  std::vector<Asked> asked() const {
    const std::lock_guard lock(mutex_);
    return asked_;
  }
  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_.size();
  }

 private:
  struct Connection {
    UniqueFd fd;
    std::thread thread;
  };

  void accept_all() {
    while (true) {
      UniqueFd fd(::accept4(bound_.fd.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      const std::lock_guard lock(mutex_);
      Connection& connection = connections_.emplace_back();
      connection.fd = std::move(fd);
      connection.thread = std::thread([this, raw = connection.fd.get()] { serve(raw); });
    }
  }

  void serve(int fd) {
    Peer peer(fd);
    std::string unread;
    while (true) {
      const std::size_t end = unread.find("\r\n\r\n");
      if (end == std::string::npos) {
        char bytes[4096];
        const ssize_t got = ::recv(fd, bytes, sizeof bytes, 0);
        if (got <= 0) return;
        unread.append(bytes, static_cast<std::size_t>(got));
        continue;
      }
      Asked asked;
      asked.head = unread.substr(0, end + 2);
      unread.erase(0, end + 4);
      const std::size_t space = asked.head.find(' ');
      asked.method = asked.head.substr(0, space);
      asked.target = asked.head.substr(space + 1, asked.head.find(' ', space + 1) - space - 1);
      {
        const std::lock_guard lock(mutex_);
        asked_.push_back(asked);
      }
      script_(peer, asked);
    }
  }

  const Script script_;
  BoundPort bound_;
  mutable std::mutex mutex_;
  std::list<Connection> connections_;
  std::vector<Asked> asked_;
  std::thread accepting_;
};

/// What a volume server answers of a needle that holds `data`.
inline void answer_needle(ScriptedHttp::Peer& peer, const ScriptedHttp::Asked& asked,
                          std::string_view data) {
  const std::string length = "Content-Length: " + std::to_string(data.size()) + "\r\n\r\n";
  if (asked.method == "HEAD") {
    peer.send("HTTP/1.1 200 OK\r\n" + length);
    return;
  }
  const std::string range = asked.header("Range");
  if (range.empty()) {
    peer.send(http_reply(200, {}, data));
    return;
  }
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  const char* const text_end = range.data() + range.size();
  const auto parsed =
      std::from_chars(range.data() + std::string_view("bytes=").size(), text_end, first);
  std::from_chars(parsed.ptr + 1, text_end, last);
  if (first > data.size()) {
    peer.send(http_reply(416, {}, "invalid range"));
    return;
  }
  const std::string_view part = data.substr(first, last - first + 1);
  const auto end = static_cast<std::int64_t>(first + part.size()) - 1;
  peer.send(http_reply(206,
                       {"Content-Range: bytes " + std::to_string(first) + "-" +
                        std::to_string(end) + "/" + std::to_string(data.size())},
                       part));
}

/// A master that says of each volume what it is told.
class ScriptedMaster {
 public:
  void place(std::uint32_t volume, std::vector<std::string> servers) {
    const std::lock_guard lock(mutex_);
    places_[volume] = std::move(servers);
  }
  std::string address() const { return http_.address(); }
  std::size_t asked() const { return http_.asked().size(); }
  /// From now on it hangs up on everybody, or does so no longer.
  void set_down(bool down) { down_.store(down); }

 private:
  void answer(ScriptedHttp::Peer& peer, const ScriptedHttp::Asked& asked) {
    if (down_.load()) return peer.hang_up();
    constexpr std::string_view kPath = "/dir/lookup?volumeId=";
    if (!asked.target.starts_with(kPath)) {
      peer.send(http_reply(400));
      return;
    }
    const std::string volume = asked.target.substr(kPath.size());
    const std::lock_guard lock(mutex_);
    const auto found = places_.find(static_cast<std::uint32_t>(std::stoul(volume)));
    if (found == places_.end()) {
      peer.send(http_reply(404, {}, R"({"volumeOrFileId":")" + volume + R"(","error":"none"})"));
      return;
    }
    std::string locations;
    for (const std::string& each : found->second) {
      if (!locations.empty()) locations += ",";
      locations += R"({"url":")" + each + R"(","publicUrl":")" + each + R"("})";
    }
    peer.send(http_reply(
        200, {}, R"({"volumeOrFileId":")" + volume + R"(","locations":[)" + locations + "]}"));
  }

  std::mutex mutex_;
  std::map<std::uint32_t, std::vector<std::string>> places_;
  std::atomic<bool> down_{false};
  ScriptedHttp http_{[this](auto& peer, const auto& asked) { answer(peer, asked); }};
};

}  // namespace kelp::test
