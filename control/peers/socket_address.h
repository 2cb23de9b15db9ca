// Addresses as sockets take them, from text and back.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>

#include "control/gateway/server_address.h"

namespace kelp {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  void set_port(std::uint16_t port);
  /// Of "0.0.0.0" and "::".
  bool is_any() const;
};

/// nullopt: its host is a name.
std::optional<SocketAddress> numeric_address(const ServerAddress& address);
/// Of an IPv6 address, or an IPv4 one in it; and back. Their port is 0.
SocketAddress address_from(const std::array<std::uint8_t, 16>& bytes);
std::array<std::uint8_t, 16> bytes_of(const SocketAddress& address);
ServerAddress address_of(const sockaddr& storage);

}  // namespace kelp
