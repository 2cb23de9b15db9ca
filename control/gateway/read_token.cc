#include "control/gateway/read_token.h"

#include <jwt.h>

#include <cstdlib>
#include <memory>

#include "control/secret_file.h"

namespace kelp {
namespace {

constexpr std::chrono::seconds kLifetime{60};  // as SeaweedFS's own, unless configured otherwise

struct JwtFree {
  void operator()(jwt_t* token) const noexcept { ::jwt_free(token); }
};
struct Free {
  void operator()(char* text) const noexcept { std::free(text); }
};

}  // namespace

Result<std::string> load_read_key(const std::string& path) {
  const std::string doing = "cannot read the key of read tokens from " + path;
  auto key = read_secret_file(path, doing);
  if (!key) return key;
  if (key->ends_with('\n')) key->pop_back();  // an editor's, not the key's
  if (key->empty()) {
    return plain_error(doing + ": it is empty; put the text of jwt.signing.read.key into it");
  }
  return key;
}

std::string sign_read_token(const std::string& key, const std::string& fid,
                            std::chrono::system_clock::time_point now) {
  jwt_t* made = nullptr;
  if (::jwt_new(&made) != 0) return {};
  const std::unique_ptr<jwt_t, JwtFree> token(made);
  const auto expiry = std::chrono::floor<std::chrono::seconds>(now.time_since_epoch()) + kLifetime;
  const auto* key_bytes = reinterpret_cast<const unsigned char*>(key.data());
  if (::jwt_set_alg(token.get(), JWT_ALG_HS256, key_bytes, static_cast<int>(key.size())) != 0 ||
      ::jwt_add_grant(token.get(), "fid", fid.c_str()) != 0 ||
      ::jwt_add_grant_int(token.get(), "exp", expiry.count()) != 0) {
    return {};
  }
  const std::unique_ptr<char, Free> text(::jwt_encode_str(token.get()));
  return text ? std::string(text.get()) : std::string();
}

}  // namespace kelp
