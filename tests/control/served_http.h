// An HttpServer on a thread of its own, with the loop its users write.
#pragma once

#include <poll.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "control/http_routes.h"
#include "control/http_server.h"
#include "control/temp_dir.h"
#include "control/unix_client.h"
#include "control/unix_listener.h"

namespace kelp::test {

class ServedHttp {
 public:
  explicit ServedHttp(HttpHandler handler, HttpLimits limits = {},
                      const std::string& socket_name = "http.sock")
      : listener_(UnixListener::create(dir_ / socket_name).value()),
        server_(HttpServer::create(listener_.fd(), std::move(handler), limits).value()),
        thread_([this] { loop(); }) {}
  ~ServedHttp() {
    stop_ = true;
    thread_.join();
  }

  const std::string& dir() const { return dir_.path(); }
  UniqueFd connect() const { return connect_to(listener_.path()); }

  /// One request on a connection of its own, start to end.
  std::string ask(const std::string& request) const {
    const UniqueFd fd = connect();
    send_text(fd, request);
    return receive_all(fd);
  }
  std::string get(const std::string& target) const {
    return ask("GET " + target + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }

  /// Rounds of the loop so far: an idle server makes few.
  std::uint64_t rounds() const { return rounds_; }

 private:
  void loop() {
    while (!stop_) {
      constexpr std::chrono::milliseconds kLongest(20);  // so that stop_ is seen
      const auto wait = std::min(server_.timeout().value_or(kLongest), kLongest);
      pollfd ready{server_.epoll_fd(), POLLIN, 0};
      ::poll(&ready, 1, static_cast<int>(wait.count()));
      server_.run();
      ++rounds_;
    }
  }

  TempDir dir_;
  UnixListener listener_;
  HttpServer server_;
  std::atomic<bool> stop_{false};
  std::atomic<std::uint64_t> rounds_{0};
  std::thread thread_;
};

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace kelp::test
