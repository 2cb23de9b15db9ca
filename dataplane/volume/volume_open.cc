#include "dataplane/volume/volume_open.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include "dataplane/volume/descriptor_room.h"
#include "dataplane/volume/file_system.h"
#include "dataplane/volume/offset_width.h"
#include "dataplane/volume/vif.h"

namespace kelp {
namespace {

constexpr int kOpenAttempts = 5;
constexpr const char* kNoMemory = "not enough memory for the volume's index";
constexpr std::size_t kReplayBytes = 65536 * kIndexRowBytesMax;
// Opening a FIFO to read waits for a writer, for ever perhaps; with O_NONBLOCK it does not. Regular
// files ignore the flag.
constexpr int kOpenFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;

bool exists(const std::string& path) {
  struct stat st {};
  return ::lstat(path.c_str(), &st) == 0;
}

bool same_file(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

std::string last_error() {
  return std::strerror(errno);
}

/// What keeps the open file from being read by us, if anything. A .idx may lie in a directory of
/// its own, and either file may be a link, so the directory's check says nothing of them.
std::optional<std::string> unsound_file_system(int fd, const std::string& path) {
  struct statfs facts {};
  if (::fstatfs(fd, &facts) != 0) return "cannot ask which file system " + path + " is on";
  const FileSystem found = classify_file_system(static_cast<std::uint32_t>(facts.f_type));
  if (found.allowed) return std::nullopt;
  return path + " is on file system " + std::string(found.name) +
         ", where a file's attributes are not known to be current at once";
}

/// Whether RWF_NOWAIT is understood for this file.
bool reads_without_waiting(int fd) {
  std::byte byte;
  const iovec part{&byte, 1};
  return ::preadv2(fd, &part, 1, 0, RWF_NOWAIT) >= 0 || errno == EAGAIN;
}

bool is_tmpfs(int fd) {
  struct statfs fs {};
  return ::fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

}  // namespace

VolumeOpen::VolumeOpen(VolumeId id, VolumePaths paths, std::shared_ptr<VolumeCounters> counters) {
  parts_.id = id;
  parts_.paths = std::move(paths);
  parts_.counters = std::move(counters);
}

VolumeOpen::Turn VolumeOpen::fail(OpenRefusal refusal, std::string reason) {
  failure_ = {refusal, std::move(reason)};
  return Turn::kFailed;
}

VolumeOpen::Turn VolumeOpen::step() {
  try {
    return opened_ ? replay() : open_files();
  } catch (const std::bad_alloc&) {
    return fail(OpenRefusal::kBroken, kNoMemory);
  }
}

VolumeOpen::Turn VolumeOpen::open_files() {
  const VolumePaths& paths = parts_.paths;
  struct stat dat_stat {};
  for (int attempt = 0;; ++attempt) {
    if (exists(paths.copy_marker))
      return fail(OpenRefusal::kNotNow, "the volume is being copied in");
    if (exists(paths.compaction_marker))
      return fail(OpenRefusal::kNotNow, "a vacuum is being committed");
    parts_.dat.reset(::open(paths.dat.c_str(), kOpenFlags));
    if (!parts_.dat)
      return fail(OpenRefusal::kBroken, "cannot open " + paths.dat + ": " + last_error());
    parts_.idx.reset(::open(paths.idx.c_str(), kOpenFlags));
    if (!parts_.idx)
      return fail(OpenRefusal::kBroken, "cannot open " + paths.idx + ": " + last_error());
    if (!leaves_descriptors(parts_.idx.get(), kVolumesLeaveOneIn)) {
      return fail(OpenRefusal::kBroken,
                  "too many files are open: the rest of the descriptors is for clients (raise the "
                  "daemon's RLIMIT_NOFILE)");
    }
    if (::fstat(parts_.dat.get(), &dat_stat) != 0 ||
        ::fstat(parts_.idx.get(), &parts_.idx_stat) != 0) {
      return fail(OpenRefusal::kBroken, "cannot stat the open files: " + last_error());
    }
    struct stat dat_again {};
    struct stat idx_again {};
    // The markers first: when a vacuum's marker is gone its renames are done, and the paths show
    // them. The other way round, a swap that ends between the two looks would go unnoticed.
    const bool settled = !exists(paths.compaction_marker) && !exists(paths.copy_marker) &&
                         ::stat(paths.dat.c_str(), &dat_again) == 0 &&
                         ::stat(paths.idx.c_str(), &idx_again) == 0 &&
                         same_file(dat_stat, dat_again) && same_file(parts_.idx_stat, idx_again);
    if (settled) break;
    if (attempt == kOpenAttempts) {
      return fail(OpenRefusal::kNotNow, "the files keep being replaced");
    }
  }
  if (!S_ISREG(dat_stat.st_mode) || !S_ISREG(parts_.idx_stat.st_mode)) {
    return fail(OpenRefusal::kBroken, "not regular files");
  }
  for (const auto& [fd, path] :
       {std::pair(parts_.dat.get(), &paths.dat), std::pair(parts_.idx.get(), &paths.idx)}) {
    if (auto why = unsound_file_system(fd, *path)) return fail(OpenRefusal::kUseHttp, *why);
  }

  std::array<std::byte, kSuperBlockBytes> block;
  const ssize_t got = ::pread(parts_.dat.get(), block.data(), block.size(), 0);
  if (got < 0) return fail(OpenRefusal::kBroken, "cannot read " + paths.dat + ": " + last_error());
  if (got < static_cast<ssize_t>(block.size())) {
    return fail(OpenRefusal::kBroken, paths.dat + " is shorter than a super block");
  }
  const auto super_block = parse_super_block(block);
  if (!super_block) {
    return fail(OpenRefusal::kUseHttp, "unknown needle version " +
                                           std::to_string(std::to_integer<int>(block[0])) +
                                           " in the super block of " + paths.dat);
  }
  if (super_block->extra_bytes != 0 && super_block->version != 1) {
    return fail(OpenRefusal::kUseHttp, "the super block of " + paths.dat + " has an extra part");
  }
  parts_.super_block = *super_block;

  const auto vif = read_vif(paths.vif);
  if (!vif) return fail(OpenRefusal::kBroken, vif.error().what);
  const auto info = parse_vif(*vif);
  // A .vif cut by a rewrite in progress parses next time; one that stays so is not understood.
  if (!info) return fail(OpenRefusal::kNotNow, paths.vif + ": " + info.error().what);
  if (info->tiered) return fail(OpenRefusal::kUseHttp, "the volume's data is in a remote tier");
  parts_.claimed_width = info->bytes_offset;
  parts_.always_in_memory = is_tmpfs(parts_.dat.get());
  parts_.reads_without_waiting = reads_without_waiting(parts_.dat.get());

  parts_.log = IndexLog(super_block->version);
  std::array<std::byte, kWidthBytesMax> start;
  const ssize_t rows = ::pread(parts_.idx.get(), start.data(), start.size(), 0);
  if (rows < 0) return fail(OpenRefusal::kBroken, "cannot read " + paths.idx + ": " + last_error());
  parts_.log.set_width(detect_offset_width(
      std::span<const std::byte>(start.data(), static_cast<std::size_t>(rows)), parts_.dat.get()));
  opened_ = true;
  if (parts_.log.width() == OffsetWidth::kUnknown) {
    // Nothing to replay by yet: Volume::refresh() decides when rows come, and starts from 0.
    parts_.idx_stat.st_size = 0;
    return Turn::kDone;
  }
  parts_.log.expect(static_cast<std::uint64_t>(parts_.idx_stat.st_size) / parts_.log.row_size());
  return Turn::kMore;
}

VolumeOpen::Turn VolumeOpen::replay() {
  IndexLog& log = parts_.log;
  const auto size = static_cast<std::uint64_t>(parts_.idx_stat.st_size);
  const std::uint64_t consumed = log.consumed_bytes();
  const std::uint64_t whole = size / log.row_size() * log.row_size();
  if (consumed >= whole) return settle();
  std::vector<std::byte> rows(
      std::min<std::uint64_t>(whole - consumed, kReplayBytes / log.row_size() * log.row_size()));
  const ssize_t got =
      ::pread(parts_.idx.get(), rows.data(), rows.size(), static_cast<off_t>(consumed));
  if (got < 0)
    return fail(OpenRefusal::kBroken, "cannot read " + parts_.paths.idx + ": " + last_error());
  const IndexLog::Applied applied =
      log.apply(std::span<const std::byte>(rows.data(), static_cast<std::size_t>(got)),
                consumed + static_cast<std::uint64_t>(got) < whole);
  if (applied.out_of_memory) return fail(OpenRefusal::kBroken, kNoMemory);
  // No progress: cut since the fstat(), or zero rows up to the end. refresh() judges either.
  if (applied.rows == 0) return settle();
  return log.consumed_bytes() >= whole ? settle() : Turn::kMore;
}

VolumeOpen::Turn VolumeOpen::settle() {
  switch (parts_.log.settle()) {
    case RowPartitions::Flushed::kAll:
      return Turn::kDone;
    case RowPartitions::Flushed::kSome:
      return Turn::kMore;
    case RowPartitions::Flushed::kOutOfMemory:
      break;
  }
  return fail(OpenRefusal::kBroken, kNoMemory);
}

std::unique_ptr<Volume> VolumeOpen::take() {
  return std::make_unique<Volume>(std::move(parts_));
}

}  // namespace kelp
