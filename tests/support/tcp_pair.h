// Two ends of a TCP connection over 127.0.0.1.
#pragma once

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <stdexcept>

#include "shm_ring/unique_fd.h"

namespace kelp::test {

struct TcpPair {
  UniqueFd a;
  UniqueFd b;

  TcpPair() {
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof address;
    a.reset(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (::bind(listener.get(), plain, length) != 0 || ::listen(listener.get(), 1) != 0 ||
        ::getsockname(listener.get(), plain, &length) != 0 ||
        ::connect(a.get(), plain, length) != 0) {
      throw std::runtime_error("no TCP connection over 127.0.0.1");
    }
    b.reset(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    const int on = 1;
    for (const int fd : {a.get(), b.get()}) {
      ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    }
  }
};

}  // namespace kelp::test
