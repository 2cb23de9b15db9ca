#include "sidecar/temp_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

namespace kelp::sidecar {
namespace {

constexpr std::string_view kPrefix = "kelp-";
constexpr std::string_view kDigits = "0123456789abcdef";
constexpr std::size_t kRandomBytes = 16;
constexpr std::size_t kNameBytes = kPrefix.size() + 2 * kRandomBytes;
constexpr mode_t kDirectoryMode = 0750;
constexpr mode_t kFileMode = 0640;

bool is_our_name(std::string_view name) {
  return name.size() == kNameBytes && name.starts_with(kPrefix) &&
         name.find_first_not_of(kDigits, kPrefix.size()) == std::string_view::npos;
}

/// Empty: the kernel has no random bytes.
std::string new_name() {
  std::array<unsigned char, kRandomBytes> random{};
  if (::getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size())) {
    return {};
  }
  std::string name(kPrefix);
  for (const unsigned char byte : random) {
    name += kDigits[byte >> 4];
    name += kDigits[byte & 15];
  }
  return name;
}

bool write_all(int fd, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return true;
}

}  // namespace

Result<TempFiles> TempFiles::open(const std::string& directory, std::uint64_t most_bytes) {
  const std::string what = "sidecar.temp_dir: " + directory;
  if (::mkdir(directory.c_str(), kDirectoryMode) == 0) {
    ::chmod(directory.c_str(), kDirectoryMode);  // whatever the umask is
  } else if (errno != EEXIST) {
    return system_error("cannot make " + what);
  }
  UniqueFd fd(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) return system_error("cannot open " + what);
  struct stat found {};
  if (::fstat(fd.get(), &found) != 0) return system_error("cannot look at " + what);
  constexpr const char* kRemedy = "; name one that kelpd makes for itself, like /dev/shm/kelp";
  if (found.st_uid != ::geteuid()) return plain_error(what + " belongs to another user" + kRemedy);
  if ((found.st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    return plain_error(what + " may be written to by others" + kRemedy);
  }
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return plain_error(what + " is in use by another kelpd");
  }
  TempFiles files(directory, std::move(fd), most_bytes);
  files.clear_directory();
  return files;
}

TempFiles::~TempFiles() {
  if (!fd_) return;
  for (const auto& [name, size] : sizes_) ::unlinkat(fd_.get(), name.c_str(), 0);
}

/// Only what has a name of ours.
void TempFiles::clear_directory() {
  struct Close {
    void operator()(DIR* directory) const noexcept { ::closedir(directory); }
  };
  const int copy = ::openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, Close> listing(copy < 0 ? nullptr : ::fdopendir(copy));
  if (listing == nullptr) return;
  while (const dirent* entry = ::readdir(listing.get())) {
    if (is_our_name(entry->d_name)) ::unlinkat(fd_.get(), entry->d_name, 0);
  }
}

std::string TempFiles::put(std::span<const std::byte> bytes, Clock::time_point now) {
  if (bytes.empty() || bytes_ + bytes.size() > most_bytes_) return {};
  const std::string name = new_name();
  if (name.empty()) return {};
  const UniqueFd file(::openat(fd_.get(), name.c_str(),
                               O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, kFileMode));
  if (!file) return {};
  // The group may read it whatever the umask is: that of the unit takes it from everybody. Whole,
  // or not there: an empty file would be read as an answer of no bytes.
  if (::fchmod(file.get(), kFileMode) != 0 || !write_all(file.get(), bytes)) {
    ::unlinkat(fd_.get(), name.c_str(), 0);
    return {};
  }
  bytes_ += bytes.size();
  sizes_.emplace(name, bytes.size());
  by_age_.push_back({name, now + kLifetime});
  return directory_ + "/" + name;
}

void TempFiles::drop(const std::string& name) {
  const auto found = sizes_.find(name);
  if (found == sizes_.end()) return;
  ::unlinkat(fd_.get(), name.c_str(), 0);
  bytes_ -= found->second;
  sizes_.erase(found);
}

/// Nothing but a name that is exactly one of ours is ever looked up, so there is no link and no
/// ".." to follow.
TempFiles::Removal TempFiles::remove(std::string_view path) {
  if (path.size() != directory_.size() + 1 + kNameBytes || !path.starts_with(directory_) ||
      path[directory_.size()] != '/') {
    return Removal::kNotOurs;
  }
  const std::string name(path.substr(directory_.size() + 1));
  if (!is_our_name(name)) return Removal::kNotOurs;
  if (!sizes_.contains(name)) return Removal::kGone;
  drop(name);
  return Removal::kRemoved;
}

void TempFiles::expire(Clock::time_point now) {
  while (!by_age_.empty() && now >= by_age_.front().end) {
    drop(by_age_.front().name);
    by_age_.pop_front();
  }
}

}  // namespace kelp::sidecar
