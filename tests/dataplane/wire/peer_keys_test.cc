#include "dataplane/wire/peer_keys.h"

#include <doctest/doctest.h>

#include <string>

using namespace kelp::wire;

namespace {

constexpr const char* kHex = "000102030405060708090a0b0c0d0e0f";

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string hex(const Mac& mac) {
  std::string text;
  for (const std::uint8_t byte : mac) {
    constexpr const char* kDigits = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

}  // namespace

TEST_CASE("keys are read line by line, the first is the gateway's") {
  const auto keys =
      PeerKeys::parse(std::string("# keys\n\n  7 ") + kHex + " \r\n3\t" + kHex + kHex);
  REQUIRE(keys);
  CHECK(keys->first_id() == 7);
  CHECK(keys->sign(7, {}));
  CHECK(keys->sign(3, {}));
  CHECK_FALSE(keys->sign(4, {}));
  CHECK_FALSE(keys->sign(0, {}));
  CHECK_FALSE(keys->empty());
  CHECK(PeerKeys::parse("# nothing\n")->empty());
  CHECK(PeerKeys::parse("")->first_id() == 0);
}

TEST_CASE("a wrong line is named, and nothing of it said") {
  const std::string secret = "c0ffee00c0ffee00c0ffee00c0ffee0";  // a digit short
  for (const std::string& line :
       {"1 " + secret, "0 " + std::string(kHex), "x " + std::string(kHex),
        "4294967296 " + std::string(kHex), std::string(kHex), std::string("1"),
        "1 " + std::string(30, 'a'), "1 " + std::string(514, 'a'),
        "1 " + std::string(kHex) + " more", "1 " + std::string(32, 'g'), "-1 " + std::string(kHex),
        "+1 " + std::string(kHex)}) {
    CAPTURE(line);
    const auto keys = PeerKeys::parse("# first\n" + line + "\n");
    REQUIRE_FALSE(keys);
    CHECK(keys.error().what.find("line 2") != std::string::npos);
    CHECK(keys.error().what.find("c0ffee") == std::string::npos);
  }
  const auto twice = PeerKeys::parse(std::string("1 ") + kHex + "\n1 " + kHex);
  REQUIRE_FALSE(twice);
  CHECK(twice.error().what.find("line 2") != std::string::npos);
}

TEST_CASE("the signature is HMAC-SHA-256 over all parts together") {
  // RFC 4231, test case 7: a key of 131 bytes of 0xaa.
  std::string key = "1 ";
  for (int i = 0; i < 131; ++i) key += "aa";
  const auto keys = PeerKeys::parse(key);
  REQUIRE(keys);
  const std::string_view text =
      "This is a test using a larger than block-size key and a larger than block-size data. The "
      "key "
      "needs to be hashed before being used by the HMAC algorithm.";
  const char* const expected = "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2";
  CHECK(hex(*keys->sign(1, {bytes_of(text)})) == expected);
  CHECK(hex(*keys->sign(1, {bytes_of(text.substr(0, 10)), {}, bytes_of(text.substr(10))})) ==
        expected);
}

TEST_CASE("signatures are the same or not") {
  Mac a{};
  Mac b{};
  CHECK(same_mac(a, b));
  b[31] = 1;
  CHECK_FALSE(same_mac(a, b));
}
