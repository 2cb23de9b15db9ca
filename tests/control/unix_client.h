// Plain Unix-socket clients for tests.
#pragma once

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "shm_ring/unique_fd.h"

namespace kelp::test {

/// Connects; an empty descriptor and errno where that fails.
inline UniqueFd connect_to(const std::string& path, int type = SOCK_STREAM) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return {};
  return fd;
}

inline bool send_text(const UniqueFd& fd, const std::string& text) {
  return ::send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(text.size());
}

/// What arrives until the peer hangs up, or until nothing has come for `patience_ms`.
inline std::string receive_all(const UniqueFd& fd, int patience_ms = 3000) {
  std::string text;
  char buffer[4096];
  while (true) {
    pollfd ready{fd.get(), POLLIN, 0};
    if (::poll(&ready, 1, patience_ms) <= 0) return text;
    const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (got <= 0) return text;
    text.append(buffer, static_cast<std::size_t>(got));
  }
}

/// What arrives until `text` has, or until nothing has come for `patience_ms`.
inline std::string receive_until(const UniqueFd& fd, const std::string& text,
                                 int patience_ms = 10'000) {
  std::string received;
  char buffer[4096];
  while (received.find(text) == std::string::npos) {
    pollfd ready{fd.get(), POLLIN, 0};
    if (::poll(&ready, 1, patience_ms) <= 0) return received;
    const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, 0);
    if (got <= 0) return received;
    received.append(buffer, static_cast<std::size_t>(got));
  }
  return received;
}

/// True once the peer has hung up, or false after `patience_ms`.
inline bool hung_up(const UniqueFd& fd, int patience_ms) {
  pollfd ready{fd.get(), POLLIN, 0};
  char byte;
  return ::poll(&ready, 1, patience_ms) == 1 && ::recv(fd.get(), &byte, 1, MSG_PEEK) <= 0;
}

}  // namespace kelp::test
