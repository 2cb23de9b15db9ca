#include "dataplane/checksum/crc32c.h"

#include <doctest/doctest.h>
#include <sys/mman.h>

#include <random>
#include <vector>

#include "dataplane/checksum/stored_checksum.h"
#include "support/hex_bytes.h"

using kelp::crc32c;
using kelp::crc32c_extend;
using kelp::test::text_bytes;

namespace {

/// Castagnoli bit by bit, from the definition.
std::uint32_t slow_crc32c(std::span<const std::byte> bytes) {
  std::uint32_t remainder = 0xffffffff;
  for (const std::byte byte : bytes) {
    remainder ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      remainder = (remainder >> 1) ^ ((remainder & 1) != 0 ? 0x82f63b78u : 0u);
    }
  }
  return ~remainder;
}

}  // namespace

TEST_CASE("CRC-32C has its known answers, raw and masked") {
  CHECK(crc32c(text_bytes("123456789")) == 0xe3069283);
  CHECK(kelp::masked_crc(0xe3069283) == 0xc78ab0e5);
  CHECK(crc32c(text_bytes("hello")) == 0x9a71bb4c);
  CHECK(kelp::masked_crc(0x9a71bb4c) == 0x191c1fbb);
  CHECK(crc32c({}) == 0);
  CHECK(kelp::masked_crc(0) == 0xa282ead8);
}

TEST_CASE("a stored checksum matches raw or masked, and nothing else") {
  CHECK(kelp::checksum_matches(0x9a71bb4c, 0x9a71bb4c));
  CHECK(kelp::checksum_matches(0x191c1fbb, 0x9a71bb4c));
  CHECK_FALSE(kelp::checksum_matches(0x9a71bb4d, 0x9a71bb4c));
  CHECK_FALSE(kelp::checksum_matches(0, 0x9a71bb4c));
  // Masking is not symmetric: the stored side may be masked, the computed one never is.
  CHECK_FALSE(kelp::checksum_matches(0x9a71bb4c, 0x191c1fbb));
}

TEST_CASE("CRC-32C agrees with its definition at every length and alignment") {
  std::mt19937_64 random(3);
  std::vector<std::byte> bytes(600);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  for (std::size_t length = 0; length < 520; ++length) {
    const auto piece = std::span(bytes).subspan(length % 17, length);
    REQUIRE(crc32c(piece) == slow_crc32c(piece));
  }
}

TEST_CASE("a CRC taken in pieces is the CRC of the whole") {
  std::mt19937_64 random(4);
  std::vector<std::byte> bytes(100'000);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  const std::uint32_t whole = crc32c(bytes);
  for (const std::size_t cut : {0u, 1u, 7u, 8u, 4096u, 99'999u, 100'000u}) {
    const auto [head, tail] = std::pair(std::span(bytes).first(cut), std::span(bytes).subspan(cut));
    CHECK(crc32c_extend(crc32c(head), tail) == whole);
  }
  std::uint32_t running = 0;
  for (std::size_t at = 0; at < bytes.size(); at += 13) {
    const std::size_t piece = std::min<std::size_t>(13, bytes.size() - at);
    running = crc32c_extend(running, std::span(bytes).subspan(at, piece));
  }
  CHECK(running == whole);
}

TEST_CASE("a length beyond a signed int is covered to its last byte") {
  // 3 GiB of untouched address space: reads map the zero page, so this costs page tables only.
  constexpr std::size_t kLength = (std::size_t{3} << 30) + 5;
  void* const memory = ::mmap(nullptr, kLength, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  REQUIRE(memory != MAP_FAILED);
  const std::span<std::byte> bytes(static_cast<std::byte*>(memory), kLength);
  bytes.back() = std::byte{0x5a};
  constexpr std::size_t kHalf = kLength / 2;
  CHECK(crc32c(bytes) == crc32c_extend(crc32c(bytes.first(kHalf)), bytes.subspan(kHalf)));
  const std::uint32_t before = crc32c(bytes);
  bytes.back() = std::byte{0};
  CHECK(crc32c(bytes) != before);
  ::munmap(memory, kLength);
}
