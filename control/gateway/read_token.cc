#include "control/gateway/read_token.h"

#include <fcntl.h>
#include <jwt.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <memory>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

constexpr std::size_t kMaxKeyBytes = 4096;
constexpr std::chrono::seconds kLifetime{60};  // as SeaweedFS's own, unless configured otherwise

struct JwtFree {
  void operator()(jwt_t* token) const noexcept { ::jwt_free(token); }
};
struct Free {
  void operator()(char* text) const noexcept { std::free(text); }
};

Result<void> judge_key_file(int fd, const std::string& path, const std::string& doing) {
  struct stat found {};
  if (::fstat(fd, &found) != 0) return system_error(doing);
  if (!S_ISREG(found.st_mode)) {
    return plain_error(doing + ": it is not a regular file; name the file that holds the key");
  }
  if ((found.st_mode & 0007) != 0) {
    return plain_error(doing + ": all users may use it; take that from them (chmod o= " + path +
                       ") and consider a new key");
  }
  return {};
}

/// One byte more than a key may have, so that "too big" is seen whatever fstat() says.
Result<std::string> read_bounded(int fd, const std::string& doing) {
  std::string text(kMaxKeyBytes + 1, '\0');
  std::size_t used = 0;
  while (used < text.size()) {
    const ssize_t got = ::read(fd, text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return system_error(doing);
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
  }
  text.resize(used);
  return text;
}

}  // namespace

Result<std::string> load_read_key(const std::string& path) {
  const std::string doing = "cannot read the key of read tokens from " + path;
  // Non-blocking, so that a FIFO does not hold the start up before it is refused.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return system_error(doing);
  if (auto fit = judge_key_file(fd.get(), path, doing); !fit) return tl::unexpected(fit.error());
  auto key = read_bounded(fd.get(), doing);
  if (!key) return key;
  if (key->size() > kMaxKeyBytes) {
    return plain_error(doing + ": it is larger than 4 KiB; is it the right file?");
  }
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
