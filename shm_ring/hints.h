// What a request may say besides its 64 bytes: a read token, and a volume server to ask first.
// Submission.extra is 0, or 1 + the data-area offset of a block of kHintsBytes:
//
//   +0  token bytes u16 | +2  server bytes u16 | +4  token, then server; no terminators
//
// Little-endian. The daemon copies it out once and judges the copy.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kelp {

inline constexpr std::size_t kHintsBytes = 1024;
inline constexpr std::size_t kHintsHeadBytes = 4;

struct Hints {
  std::string token;
  std::string server;
};

/// False: the two do not fit.
inline bool write_hints(std::string_view token, std::string_view server,
                        std::span<std::byte, kHintsBytes> block) noexcept {
  if (token.size() > kHintsBytes || server.size() > kHintsBytes) return false;
  if (kHintsHeadBytes + token.size() + server.size() > kHintsBytes) return false;
  const auto token_bytes = static_cast<std::uint16_t>(token.size());
  const auto server_bytes = static_cast<std::uint16_t>(server.size());
  std::memcpy(block.data(), &token_bytes, 2);
  std::memcpy(block.data() + 2, &server_bytes, 2);
  if (!token.empty()) std::memcpy(block.data() + kHintsHeadBytes, token.data(), token.size());
  if (!server.empty()) {
    std::memcpy(block.data() + kHintsHeadBytes + token.size(), server.data(), server.size());
  }
  return true;
}

/// Of a copy that nobody else writes. Nothing: lengths that lie.
inline std::optional<Hints> read_hints(std::span<const std::byte, kHintsBytes> block) {
  std::uint16_t token_bytes;
  std::uint16_t server_bytes;
  std::memcpy(&token_bytes, block.data(), 2);
  std::memcpy(&server_bytes, block.data() + 2, 2);
  if (kHintsHeadBytes + token_bytes + server_bytes > kHintsBytes) return std::nullopt;
  const char* const text = reinterpret_cast<const char*>(block.data()) + kHintsHeadBytes;
  return Hints{{text, token_bytes}, {text + token_bytes, server_bytes}};
}

}  // namespace kelp
