#include "dataplane/volume/volume.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "dataplane/volume/offset_width.h"

namespace kelp {
namespace {

/// write() stamps the inode before it extends the file. This many looks bridge that moment as a
/// rule; a writer that lost its CPU, or waits for the journal, between the two has as long as
/// kWriteMayTake before an equal size with a new time is taken for a rewrite in place.
constexpr int kLooksAtEqualSize = 4;
constexpr std::uint64_t kWriteMayTakeNs = 200'000'000;

/// Before Linux 6.13 an inode's times tick with the timer, every 10 ms at worst, so two changes may
/// leave the same time. A time that young proves nothing about what came after it.
constexpr std::int64_t kYoungNs = 20'000'000;

std::atomic<std::uint64_t> generation_counter{0};

bool same_time(const struct timespec& a, const struct timespec& b) noexcept {
  return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

std::int64_t nanoseconds(const struct timespec& time) noexcept {
  return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

/// By a clock that costs no system call.
std::int64_t coarse_now_ns(clockid_t clock) noexcept {
  struct timespec now {};
  ::clock_gettime(clock, &now);
  return nanoseconds(now);
}

std::uint64_t size_of(const struct stat& st) noexcept {
  return static_cast<std::uint64_t>(std::max<off_t>(st.st_size, 0));
}

/// fstat(). Glibc makes it a newfstatat(), which looks at an empty path as well: 430 ns instead of
/// 380, once per batch of reads. Where the C library's struct is the kernel's, as on all 64-bit
/// machines but those that have no such call.
int look_at(int fd, struct stat& now) noexcept {
#if defined(SYS_fstat) && defined(__LP64__)
  return static_cast<int>(::syscall(SYS_fstat, fd, &now));
#else
  return ::fstat(fd, &now);
#endif
}

/// Reads up to `bytes.size()` at `offset`; the number read, or -1.
ssize_t read_at(int fd, std::span<std::byte> bytes, std::uint64_t offset) noexcept {
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t n =
        ::pread(fd, bytes.data() + done, bytes.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return static_cast<ssize_t>(done);
}

}  // namespace

Volume::Volume(Parts parts) : parts_(std::move(parts)) {
  remember(parts_.idx_stat);
  // The replay may have stopped before the size seen then; refresh() goes on from there.
  next_generation();
}

void Volume::next_generation() noexcept {
  generation_ = generation_counter.fetch_add(1, std::memory_order_relaxed) + 1;
  parts_.counters->generation.store(generation_, std::memory_order_relaxed);
}

void Volume::remember(const struct stat& now) noexcept {
  seen_size_ = size_of(now);
  seen_ctime_ = now.st_ctim;
  seen_mtime_ = now.st_mtim;
  seen_links_ = now.st_nlink;
  stamped_since_ns_ = 0;
  parts_.counters->needles.store(parts_.log.map().size(), std::memory_order_relaxed);
  parts_.counters->offset_width.store(static_cast<std::uint8_t>(width()),
                                      std::memory_order_relaxed);
  parts_.counters->idx_bytes.store(seen_size_, std::memory_order_relaxed);
}

bool Volume::path_is_ours() const noexcept {
  struct stat at_path {};
  if (::stat(parts_.paths.idx.c_str(), &at_path) != 0) return false;
  // Inode numbers are only compared while our descriptor keeps the old one from being reused.
  return at_path.st_dev == parts_.idx_stat.st_dev && at_path.st_ino == parts_.idx_stat.st_ino;
}

bool Volume::changed_since_seen(const struct stat& now) const noexcept {
  return !same_time(now.st_ctim, seen_ctime_) || now.st_nlink != seen_links_;
}

/// Asks for the state of the open .idx; false: it is not the volume's any more. The path is looked
/// at after the times were taken, so a swap it does not show yet changes them later.
bool Volume::look(struct stat& now) const noexcept {
  if (look_at(parts_.idx.get(), now) != 0 || now.st_nlink == 0) return false;
  const bool young = coarse_now_ns(CLOCK_REALTIME_COARSE) - nanoseconds(now.st_ctim) < kYoungNs;
  return (!young && !changed_since_seen(now)) || path_is_ours();
}

Volume::Freshness Volume::refresh() noexcept {
  struct stat now {};
  if (!look(now) || size_of(now) < seen_size_) return Freshness::kReplaced;
  if (size_of(now) > seen_size_) return take_rows(now);
  if (changed_since_seen(now)) return settle_equal_size();
  return rows_unseen() ? take_rows(now) : Freshness::kCurrent;
}

/// Rows within the size seen that were not to be taken yet: of unknown width, or all zeroes, which
/// the next look may find filled in without the file growing.
bool Volume::rows_unseen() const noexcept {
  const std::size_t row = parts_.log.row_size();
  return row == 0 ? seen_size_ > 0 : seen_size_ - parts_.log.consumed_bytes() >= row;
}

Volume::Freshness Volume::take_rows(const struct stat& now) noexcept {
  return width() == OffsetWidth::kUnknown ? decide_width(now) : replay_tail(now);
}

Volume::Freshness Volume::settle_equal_size() noexcept {
  struct stat now {};
  for (int looks = 0; looks < kLooksAtEqualSize; ++looks) {
    ::sched_yield();
    if (!look(now) || size_of(now) < seen_size_) return Freshness::kReplaced;
    if (size_of(now) > seen_size_) return take_rows(now);
  }
  // An empty index has nothing that could have been rewritten.
  if (seen_size_ == 0) {
    remember(now);
    return Freshness::kCurrent;
  }
  // Not a write: those stamp both times. A link was made, permissions changed, or the time of
  // modification was put back to hide what happened.
  if (same_time(now.st_mtim, seen_mtime_)) return Freshness::kReplaced;
  const auto clock_ns = static_cast<std::uint64_t>(coarse_now_ns(CLOCK_MONOTONIC_COARSE));
  if (stamped_since_ns_ == 0) stamped_since_ns_ = clock_ns;
  return clock_ns - stamped_since_ns_ < kWriteMayTakeNs ? Freshness::kBehind : Freshness::kReplaced;
}

Volume::Freshness Volume::replay_tail(const struct stat& now) noexcept {
  IndexLog& log = parts_.log;
  const std::size_t row = log.row_size();
  const std::uint64_t consumed = log.consumed_bytes();
  const std::size_t overlap = consumed == 0 ? 0 : row;
  const std::uint64_t unread = size_of(now) - consumed;
  const std::uint64_t wanted = overlap + std::min(unread, kRowsPerRefresh * row);

  // Owned by no one else: refresh() runs on one worker thread at a time, and does not recurse.
  thread_local std::array<std::byte, (kRowsPerRefresh + 1) * kIndexRowBytesMax> buffer;
  const std::span<std::byte> bytes(buffer.data(), static_cast<std::size_t>(wanted));
  if (read_at(parts_.idx.get(), bytes, consumed - overlap) != static_cast<ssize_t>(wanted)) {
    return Freshness::kReplaced;  // shrunk since the fstat(), or unreadable
  }
  if (overlap != 0 && !std::ranges::equal(bytes.first(overlap), log.last_row())) {
    return Freshness::kReplaced;
  }
  const bool behind = unread > kRowsPerRefresh * row;
  const IndexLog::Applied applied = log.apply(bytes.subspan(overlap), behind);
  VolumeCounters& counters = *parts_.counters;
  counters.tail_rows.fetch_add(applied.rows, std::memory_order_relaxed);
  if (applied.rewound) next_generation();
  // Without its newest rows the index would be wrong. The loader opens the volume anew, or says why
  // it cannot.
  if (applied.out_of_memory) return Freshness::kReplaced;
  if (behind) {
    counters.needles.store(log.map().size(), std::memory_order_relaxed);
    return Freshness::kBehind;
  }
  remember(now);
  return Freshness::kCurrent;
}

Volume::Freshness Volume::decide_width(const struct stat& now) noexcept {
  std::array<std::byte, kWidthBytesMax> start;
  const ssize_t got = read_at(parts_.idx.get(), start, 0);
  if (got < 0) return Freshness::kReplaced;
  const std::span<const std::byte> rows(start.data(), static_cast<std::size_t>(got));
  OffsetWidth found = OffsetWidth::kUnknown;
  try {
    found = detect_offset_width(rows, parts_.dat.get());
  } catch (...) {  // std::function may allocate: undecided for now
  }
  // The first rows of a new volume prove nothing. The .vif's word is taken while they fit it.
  const std::size_t claimed_row = row_bytes(parts_.claimed_width);
  if (found == OffsetWidth::kUnknown && claimed_row != 0 && size_of(now) % claimed_row == 0) {
    found = parts_.claimed_width;
  }
  if (found == OffsetWidth::kUnknown) {
    // Whoever asks what is there learns that something is.
    parts_.counters->idx_bytes.store(size_of(now), std::memory_order_relaxed);
    return Freshness::kUndecided;
  }
  parts_.log.set_width(found);
  return replay_tail(now);
}

}  // namespace kelp
