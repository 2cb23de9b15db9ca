#include "dataplane/wire/peer_keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <charconv>

namespace kelp::wire {
namespace {

constexpr std::size_t kLeastKeyBytes = 16;
constexpr std::size_t kMostKeyBytes = 256;

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view kBlank = " \t\r";
  const std::size_t first = text.find_first_not_of(kBlank);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kBlank) - first + 1);
}

std::optional<std::string> from_hex(std::string_view hex) {
  if (hex.size() % 2 != 0) return std::nullopt;
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) {
    unsigned value = 0;
    const auto [end, error] = std::from_chars(hex.data() + i, hex.data() + i + 2, value, 16);
    if (error != std::errc() || end != hex.data() + i + 2) return std::nullopt;
    bytes.push_back(static_cast<char>(value));
  }
  return bytes;
}

}  // namespace

Result<PeerKeys> PeerKeys::parse(std::string_view text) {
  PeerKeys keys;
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = trimmed(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    if (line.empty() || line.starts_with('#')) continue;
    const auto wrong = [&](const char* why) {
      return plain_error("line " + std::to_string(number) + " of the peers' keys " + why);
    };
    const std::size_t gap = line.find_first_of(" \t");
    std::uint32_t id = 0;
    const auto [stopped, error] =
        std::from_chars(line.data(), line.data() + std::min(gap, line.size()), id);
    if (gap == std::string_view::npos || error != std::errc() || stopped != line.data() + gap ||
        id == 0) {
      return wrong("is not \"ID HEX\", with an ID from 1 to 4294967295");
    }
    auto secret = from_hex(trimmed(line.substr(gap)));
    if (!secret) return wrong("has a key that is not an even number of hexadecimal digits");
    if (secret->size() < kLeastKeyBytes || secret->size() > kMostKeyBytes) {
      return wrong("has a key that is not of 32 to 512 hexadecimal digits");
    }
    if (std::ranges::any_of(keys.keys_, [&](const Key& each) { return each.id == id; })) {
      return wrong("has an ID that an earlier line has, too");
    }
    // In place: GCC 12 warns of a string that moves twice, for ARM64 and by mistake.
    Key& key = keys.keys_.emplace_back();
    key.id = id;
    key.secret = std::move(*secret);
  }
  return keys;
}

std::optional<Mac> PeerKeys::sign(std::uint32_t id,
                                  std::initializer_list<std::span<const std::byte>> parts) const {
  const auto key = std::ranges::find(keys_, id, &Key::id);
  if (key == keys_.end()) return std::nullopt;
  std::string all;
  for (const auto part : parts) {
    all.append(reinterpret_cast<const char*>(part.data()), part.size());
  }
  Mac mac{};
  unsigned length = 0;
  const unsigned char* const done =
      ::HMAC(::EVP_sha256(), key->secret.data(), static_cast<int>(key->secret.size()),
             reinterpret_cast<const unsigned char*>(all.data()), all.size(), mac.data(), &length);
  if (done == nullptr || length != mac.size()) return std::nullopt;
  return mac;
}

bool same_mac(const Mac& a, const Mac& b) noexcept {
  return ::CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace kelp::wire
