#include "control/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

constexpr std::size_t kMostSecretBytes = 4096;

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
  std::string text(kMostSecretBytes + 1, '\0');
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

Result<std::string> read_secret_file(const std::string& path, const std::string& doing) {
  // Non-blocking, so that a FIFO does not hold the start up before it is refused.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
  if (!fd) return system_error(doing);
  if (auto fit = judge_key_file(fd.get(), path, doing); !fit) return tl::unexpected(fit.error());
  auto text = read_bounded(fd.get(), doing);
  if (!text) return text;
  if (text->size() > kMostSecretBytes) {
    return plain_error(doing + ": it is larger than 4 KiB; is it the right file?");
  }
  return text;
}

}  // namespace kelp
