#include "control/gateway/read_token.h"

#include <doctest/doctest.h>
#include <jwt.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <memory>
#include <nlohmann/json.hpp>

#include "control/temp_dir.h"

using kelp::load_read_key;
using kelp::sign_read_token;
using kelp::test::TempDir;

namespace {

using Json = nlohmann::json;

const std::chrono::system_clock::time_point kNow{std::chrono::seconds(1'700'000'000)};
// By SeaweedFS, of the key "secret", needle 3,01637037d6 and that time.
const std::string kGolden =
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJmaWQiOiIzLDAxNjM3MDM3ZDYiLCJleHAiOjE3MDAwMDAwNjB9."
    "OAq4ueSWYRGyEEHY-j9Z1k8qwRUw9oi8BOMm0fSAohE";

/// OpenSSL's base64, with the alphabet that URLs allow and without padding at the end.
std::string base64url(const unsigned char* bytes, std::size_t count) {
  std::string text(4 * ((count + 2) / 3) + 1, '\0');
  const int length = ::EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), bytes,
                                       static_cast<int>(count));
  text.resize(static_cast<std::size_t>(length));
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  text.resize(text.find_last_not_of('=') + 1);
  return text;
}

Json decoded(std::string text) {
  std::ranges::replace(text, '-', '+');
  std::ranges::replace(text, '_', '/');
  text.resize((text.size() + 3) / 4 * 4, '=');
  std::string json(text.size(), '\0');
  const int length = ::EVP_DecodeBlock(reinterpret_cast<unsigned char*>(json.data()),
                                       reinterpret_cast<const unsigned char*>(text.data()),
                                       static_cast<int>(text.size()));
  REQUIRE(length >= 0);
  json.resize(json.rfind('}') + 1);  // what the padding decodes to goes
  return Json::parse(json, nullptr, false);
}

/// The three parts of a token, as any other implementation would read them.
struct Token {
  Json header;
  Json claims;
  std::string signature;
  std::string expected_signature;

  Token(const std::string& text, const std::string& key) {
    const std::size_t first = text.find('.');
    const std::size_t last = text.rfind('.');
    REQUIRE(first != std::string::npos);
    REQUIRE(last > first);
    header = decoded(text.substr(0, first));
    claims = decoded(text.substr(first + 1, last - first - 1));
    signature = text.substr(last + 1);
    std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
    unsigned int length = 0;
    ::HMAC(::EVP_sha256(), key.data(), static_cast<int>(key.size()),
           reinterpret_cast<const unsigned char*>(text.data()), last, mac.data(), &length);
    expected_signature = base64url(mac.data(), length);
  }
};

/// A file of the test's own, with a mode.
std::string key_file(const TempDir& dir, const std::string& text, mode_t mode = 0600) {
  std::string path = dir.write("key", text);
  REQUIRE(::chmod(path.c_str(), mode) == 0);
  return path;
}

bool refuses(const std::string& path, const std::string& part) {
  const auto key = load_read_key(path);
  return !key && key.error().what.find(path) != std::string::npos &&
         key.error().what.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a read token says what SeaweedFS's own says, and is signed as that is") {
  const Token golden(kGolden, "secret");
  CHECK(golden.signature == golden.expected_signature);  // this test reads tokens as SeaweedFS does
  const Token token(sign_read_token("secret", "3,01637037d6", kNow), "secret");
  CHECK(token.signature == token.expected_signature);
  CHECK(token.header == golden.header);
  CHECK(token.claims == golden.claims);
}

TEST_CASE("a read token is verified by its key and by no other") {
  const std::string token = sign_read_token("secret", "3,01637037d6", kNow);
  const auto verifies = [&token](const std::string& key) {
    jwt_t* decoded_token = nullptr;
    const int rc = ::jwt_decode(&decoded_token, token.c_str(),
                                reinterpret_cast<const unsigned char*>(key.data()),
                                static_cast<int>(key.size()));
    const std::unique_ptr<jwt_t, void (*)(jwt_t*)> owner(decoded_token, ::jwt_free);
    return rc == 0 && std::string(::jwt_get_grant(decoded_token, "fid")) == "3,01637037d6" &&
           ::jwt_get_grant_int(decoded_token, "exp") == 1'700'000'060;
  };
  CHECK(verifies("secret"));
  CHECK_FALSE(verifies("Secret"));
  CHECK_FALSE(verifies("secret\n"));
}

TEST_CASE("the file id in a read token is the text of the URL, to the letter") {
  for (const std::string fid :
       {"3,1637037d6", "3,01637037D6", "4294967295,ffffffffffffffffffffffff"}) {
    CHECK(Token(sign_read_token("k", fid, kNow), "k").claims["fid"] == fid);
  }
}

TEST_CASE("a read token ends 60 s after the second it was made in") {
  const auto later = kNow + std::chrono::milliseconds(999);
  CHECK(Token(sign_read_token("k", "1,0100000000", later), "k").claims["exp"] == 1'700'000'060);
}

TEST_CASE("a key is taken byte by byte: 4 KiB, UTF-8 and what is no text") {
  for (const std::string& key : {std::string(4096, 'k'), std::string("schl\xc3\xbcssel"),
                                 std::string("\0\xff key \n\0", 8)}) {
    const Token token(sign_read_token(key, "1,0100000000", kNow), key);
    CHECK(token.signature == token.expected_signature);
  }
}

TEST_CASE("nothing is signed without a key, nor about what is no text") {
  CHECK(sign_read_token("", "3,01637037d6", kNow).empty());
  CHECK(sign_read_token("secret", "3,\xff", kNow).empty());
}

TEST_CASE("a key file's last line end is not part of the key, everything else is") {
  const TempDir dir;
  CHECK(load_read_key(key_file(dir, "secret\n")) == "secret");
  CHECK(load_read_key(key_file(dir, "secret")) == "secret");
  CHECK(load_read_key(key_file(dir, " secret \n\n")) == " secret \n");
  CHECK(load_read_key(key_file(dir, std::string("a\0b\n", 4))) == std::string("a\0b", 3));
  CHECK(load_read_key(key_file(dir, std::string(4096, 'k')))->size() == 4096);
  CHECK(load_read_key(key_file(dir, "of a group\n", 0640)) == "of a group");
}

TEST_CASE("a key file that is empty or too large is refused") {
  const TempDir dir;
  CHECK(refuses(key_file(dir, ""), "jwt.signing.read.key"));
  CHECK(refuses(key_file(dir, "\n"), "empty"));
  CHECK(refuses(key_file(dir, std::string(4097, 'k')), "4 KiB"));
}

TEST_CASE("a key file that all users may use is refused, with the command that mends it") {
  const TempDir dir;
  for (const mode_t mode : {0604U, 0644U, 0602U, 0601U}) {
    const std::string path = key_file(dir, "secret\n", mode);
    CHECK(refuses(path, "chmod o= " + path));
  }
}

TEST_CASE("a key is not read from what is no regular file") {
  const TempDir dir;
  CHECK(refuses(dir / "missing", "No such file"));
  CHECK(refuses(dir.path(), "not a regular file"));
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(refuses(dir / "fifo", "not a regular file"));
  CHECK(refuses("/dev/null", "not a regular file"));
}
