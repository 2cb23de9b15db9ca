#include "dataplane/volume/needle_list.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <map>
#include <span>

#include "shm_ring/unique_fd.h"

namespace kelp {
namespace {

constexpr std::size_t kRowsPerRead = 64 * 1024;

/// The `limit` smallest live ids from `from` on, out of a replay of rows that come in any order.
///
/// Above the limit the largest id goes, and from then on nothing at or above it is looked at: below
/// that bound the window has seen every row, so what is left of it at the end is exact.
class Window {
 public:
  explicit Window(const NeedlePageRequest& request) : from_(request.from), limit_(request.limit) {}

  void apply(const IndexRow& row) {
    const auto id = static_cast<std::uint64_t>(row.id);
    if (id < from_ || (bound_ && id >= *bound_)) return;
    if (row.is_delete()) {
      live_.erase(id);
      return;
    }
    live_.insert_or_assign(id, ListedNeedle{row.id, row.offset_bytes, row.size, std::nullopt});
    if (live_.size() <= limit_) return;
    const auto largest = std::prev(live_.end());
    bound_ = largest->first;
    live_.erase(largest);
  }

  NeedlePage page() && {
    NeedlePage page;
    page.needles.reserve(live_.size());
    for (const auto& [id, needle] : live_) page.needles.push_back(needle);
    page.next = bound_;
    return page;
  }

 private:
  const std::uint64_t from_;
  const std::size_t limit_;
  std::map<std::uint64_t, ListedNeedle> live_;
  std::optional<std::uint64_t> bound_;
};

/// A FIFO of that name is refused, not waited for.
Result<UniqueFd> open_file(const std::string& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat found {};
  if (!fd || ::fstat(fd.get(), &found) != 0) return system_error("cannot open " + path);
  if (!S_ISREG(found.st_mode)) return plain_error(path + " is not a file");
  return fd;
}

/// Bytes read, less than asked for only at the end of the file; -1 with errno.
ssize_t read_fully(int fd, std::span<std::byte> into, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < into.size()) {
    const ssize_t got =
        ::pread(fd, into.data() + done, into.size() - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return -1;
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  return static_cast<ssize_t>(done);
}

Result<void> may_go_on(const NeedlePageRequest& request, const std::atomic<bool>& stop) {
  if (stop.load(std::memory_order_relaxed)) return plain_error("the daemon stops");
  if (std::chrono::steady_clock::now() < request.deadline) return {};
  return plain_error("the volume's files could not be read in time");
}

Result<void> replay(int idx, const std::string& path, OffsetWidth width,
                    const NeedlePageRequest& request, const std::atomic<bool>& stop,
                    Window& window) {
  const std::size_t row_size = row_bytes(width);
  std::vector<std::byte> bytes(kRowsPerRead * row_size);
  for (std::uint64_t offset = 0;;) {
    if (auto go_on = may_go_on(request, stop); !go_on) return go_on;
    const ssize_t got = read_fully(idx, bytes, offset);
    if (got < 0) return system_error("cannot read " + path);
    const std::size_t rows = static_cast<std::size_t>(got) / row_size;
    for (std::size_t row = 0; row < rows; ++row) {
      window.apply(parse_index_row(bytes.data() + row * row_size, width));
    }
    if (rows < kRowsPerRead) return {};
    offset += bytes.size();
  }
}

Result<void> read_cookies(const std::string& path, const NeedlePageRequest& request,
                          const std::atomic<bool>& stop, NeedlePage& page) {
  const Result<UniqueFd> dat = open_file(path);
  if (!dat) return tl::unexpected(dat.error());
  for (ListedNeedle& needle : page.needles) {
    if (auto go_on = may_go_on(request, stop); !go_on) return go_on;
    std::array<std::byte, kNeedleHeaderBytes> bytes{};
    const ssize_t got = read_fully(dat->get(), bytes, needle.offset_bytes);
    if (got < 0) return system_error("cannot read " + path);
    const NeedleHeader header = parse_needle_header(bytes);
    const bool whole = static_cast<std::size_t>(got) == bytes.size();
    if (whole && header.id == needle.id) needle.cookie = header.cookie;
  }
  return {};
}

}  // namespace

Result<NeedlePage> list_needles(const VolumePaths& paths, OffsetWidth width,
                                const NeedlePageRequest& request, const std::atomic<bool>& stop) {
  if (width == OffsetWidth::kUnknown) {
    return plain_error("the width of the rows of " + paths.idx + " cannot be told yet");
  }
  const Result<UniqueFd> idx = open_file(paths.idx);
  if (!idx) return tl::unexpected(idx.error());
  Window window(request);
  if (auto done = replay(idx->get(), paths.idx, width, request, stop, window); !done) {
    return tl::unexpected(done.error());
  }
  NeedlePage page = std::move(window).page();
  if (request.cookies) {
    if (auto done = read_cookies(paths.dat, request, stop, page); !done) {
      return tl::unexpected(done.error());
    }
  }
  return page;
}

}  // namespace kelp
