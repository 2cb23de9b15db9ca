// "host:port" of a server, as masters, configuration and callers write it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "shm_ring/result.h"

namespace kelp {

struct ServerAddress {
  std::string host;  ///< lower case; a name, IPv4, or IPv6 without brackets
  std::uint16_t port = 0;

  /// "host:port", "[::1]:8080"
  std::string text() const;
  friend bool operator==(const ServerAddress&, const ServerAddress&) = default;
};

/// Takes "host:port", "[v6]:port", "host:port.grpcPort" (SeaweedFS's), and each with "http://" or
/// "https://" before it and one "/" behind. Anything else is an error that names the text: other
/// schemes, user names, paths, queries, fragments, spaces, control characters, no port, port 0.
/// Numbers that only look like a name ("0x7f.1", "127.1") are not resolved here: two texts are the
/// same server only if they are the same text.
Result<ServerAddress> parse_server_address(std::string_view text);

}  // namespace kelp
