// The keys two kelpds know each other by, from a file: a line is "ID HEX", ID 1 to 4294967295, HEX
// at least 32 digits (16 bytes). Empty lines and lines that start with '#' mean nothing.
//
// A gateway proves itself with the first key; a target takes any. To rotate: append the new key at
// every target, move it to the front at every gateway, take the old one out at every target.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dataplane/wire/frames.h"
#include "shm_ring/result.h"

namespace kelp::wire {

class PeerKeys {
 public:
  /// No keys at all: peers are not asked for any.
  PeerKeys() = default;
  /// An error names the line, never what is in it.
  static Result<PeerKeys> parse(std::string_view text);

  bool empty() const noexcept { return keys_.empty(); }
  /// The one a gateway uses; 0: there is none.
  std::uint32_t first_id() const noexcept { return keys_.empty() ? 0 : keys_.front().id; }

  /// HMAC-SHA-256 by the key of that id over all parts, one after the other. nullopt: no such key.
  std::optional<Mac> sign(std::uint32_t id,
                          std::initializer_list<std::span<const std::byte>> parts) const;

 private:
  struct Key {
    std::uint32_t id = 0;
    std::string secret;
  };
  std::vector<Key> keys_;
};

/// In constant time.
bool same_mac(const Mac& a, const Mac& b) noexcept;

}  // namespace kelp::wire
