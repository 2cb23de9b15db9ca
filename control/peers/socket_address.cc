#include "control/peers/socket_address.h"

#include <arpa/inet.h>

#include <array>
#include <cstring>

namespace kelp {

void SocketAddress::set_port(std::uint16_t port) {
  // In the same place of both kinds.
  reinterpret_cast<sockaddr_in&>(storage).sin_port = ::htons(port);
}

bool SocketAddress::is_any() const {
  if (storage.ss_family == AF_INET) {
    return reinterpret_cast<const sockaddr_in&>(storage).sin_addr.s_addr == ::htonl(INADDR_ANY);
  }
  const in6_addr any = IN6ADDR_ANY_INIT;
  const auto& six = reinterpret_cast<const sockaddr_in6&>(storage);
  return std::memcmp(&six.sin6_addr, &any, sizeof any) == 0;
}

std::optional<SocketAddress> numeric_address(const ServerAddress& address) {
  SocketAddress made;
  auto* const four = reinterpret_cast<sockaddr_in*>(&made.storage);
  auto* const six = reinterpret_cast<sockaddr_in6*>(&made.storage);
  if (::inet_pton(AF_INET, address.host.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = ::htons(address.port);
    made.length = sizeof *four;
    return made;
  }
  if (::inet_pton(AF_INET6, address.host.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = ::htons(address.port);
    made.length = sizeof *six;
    return made;
  }
  return std::nullopt;
}

SocketAddress address_from(const std::array<std::uint8_t, 16>& bytes) {
  in6_addr address;
  std::memcpy(&address, bytes.data(), sizeof address);
  SocketAddress made;
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    auto& four = reinterpret_cast<sockaddr_in&>(made.storage);
    four.sin_family = AF_INET;
    std::memcpy(&four.sin_addr, bytes.data() + 12, sizeof four.sin_addr);
    made.length = sizeof four;
  } else {
    auto& six = reinterpret_cast<sockaddr_in6&>(made.storage);
    six.sin6_family = AF_INET6;
    six.sin6_addr = address;
    made.length = sizeof six;
  }
  return made;
}

std::array<std::uint8_t, 16> bytes_of(const SocketAddress& address) {
  std::array<std::uint8_t, 16> bytes{};
  if (address.storage.ss_family == AF_INET) {
    bytes[10] = bytes[11] = 0xff;
    std::memcpy(bytes.data() + 12, &reinterpret_cast<const sockaddr_in&>(address.storage).sin_addr,
                4);
  } else {
    std::memcpy(bytes.data(), &reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr,
                bytes.size());
  }
  return bytes;
}

ServerAddress address_of(const sockaddr& storage) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (storage.sa_family == AF_INET) {
    const auto& four = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &four.sin_addr, text.data(), text.size());
    return {text.data(), ::ntohs(four.sin_port)};
  }
  const auto& six = reinterpret_cast<const sockaddr_in6&>(storage);
  ::inet_ntop(AF_INET6, &six.sin6_addr, text.data(), text.size());
  return {text.data(), ::ntohs(six.sin6_port)};
}

}  // namespace kelp
