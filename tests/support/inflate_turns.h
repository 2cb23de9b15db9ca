// Runs a GzipInflater to its verdict, and makes data worth compressing.
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "dataplane/volume/gzip.h"

namespace kelp::test {

using Bytes = std::vector<std::byte>;

struct Inflated {
  Bytes bytes;
  GzipInflater::State state = GzipInflater::State::kBroken;
  std::size_t turns = 0;
};

/// All turns of one stream. The output sits between canaries, so a byte out of place is noticed.
inline Inflated inflate_all(GzipInflater& inflater, std::span<const std::byte> stored,
                            std::size_t out_bytes = std::size_t{1} << 20,
                            const GzipLimits& limits = {}) {
  constexpr std::size_t kCanaryBytes = 64;
  constexpr std::byte kCanary{0xa5};
  Bytes buffer(out_bytes + 2 * kCanaryBytes, kCanary);
  inflater.reset(stored, limits);
  Inflated all;
  do {
    const auto turn = inflater.inflate(std::span(buffer).subspan(kCanaryBytes, out_bytes));
    REQUIRE(turn.bytes_produced <= out_bytes);
    const auto first = buffer.begin() + kCanaryBytes;
    all.bytes.insert(all.bytes.end(), first,
                     first + static_cast<std::ptrdiff_t>(turn.bytes_produced));
    all.state = turn.state;
    // Each turn gives a byte, takes a byte, or ends; two more for what sits between the two.
    REQUIRE(++all.turns <= all.bytes.size() + stored.size() + 2);
  } while (all.state == GzipInflater::State::kMore);
  const auto is_canary = [&](std::byte byte) { return byte == kCanary; };
  REQUIRE(std::all_of(buffer.begin(), buffer.begin() + kCanaryBytes, is_canary));
  REQUIRE(std::all_of(buffer.end() - kCanaryBytes, buffer.end(), is_canary));
  return all;
}

inline Inflated inflate_all(std::span<const std::byte> stored,
                            std::size_t out_bytes = std::size_t{1} << 20,
                            const GzipLimits& limits = {}) {
  GzipInflater inflater;
  return inflate_all(inflater, stored, out_bytes, limits);
}

/// Half text, half noise: literals, short and long matches, some stored blocks.
inline Bytes sample(std::size_t length, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes;
  bytes.reserve(length + 64);
  while (bytes.size() < length) {
    if (random() % 3 == 0 && bytes.size() > 300) {
      const std::size_t from = random() % (bytes.size() - 258);
      for (std::size_t i = 0; i < 3 + random() % 255; ++i) bytes.push_back(bytes[from + i]);
    } else {
      for (int i = 0; i < 40; ++i) bytes.push_back(static_cast<std::byte>(random() % 64));
    }
  }
  bytes.resize(length);
  return bytes;
}

inline Bytes noise(std::size_t length, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  Bytes bytes(length);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

inline void append(Bytes& to, const Bytes& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace kelp::test
