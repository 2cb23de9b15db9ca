#include "dataplane/memory/client_segment.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace kelp {
namespace {

constexpr std::uint64_t kHugePageBytes = 2 << 20;

std::uint64_t round_up(std::uint64_t bytes, std::uint64_t unit) {
  return (bytes + unit - 1) / unit * unit;
}

Result<UniqueFd> make_memfd(const char* name, std::uint64_t bytes, unsigned extra_flags) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | extra_flags));
  if (!fd) return system_error("cannot create shared memory");
  if (::ftruncate(fd.get(), static_cast<off_t>(bytes)) != 0) {
    return system_error("cannot size shared memory to " + std::to_string(bytes) + " bytes");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return system_error("cannot seal shared memory");
  }
  return fd;
}

void punch(int fd, std::size_t bytes) {
  if (fd < 0 || bytes == 0) return;
  ::fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(bytes));
}

}  // namespace

Result<std::unique_ptr<ClientSegment>> ClientSegment::create(const SegmentLayout& layout,
                                                             std::uint64_t data_bytes,
                                                             HugepageUse use) {
  std::unique_ptr<ClientSegment> segment(new ClientSegment);
  segment->layout_ = layout;
  auto mapped = segment->map(data_bytes, use);
  if (!mapped) return tl::unexpected(mapped.error());
  return segment;
}

Result<void> ClientSegment::map(std::uint64_t data_bytes, HugepageUse use) {
  auto fd = make_memfd("kelp-rings", layout_.segment_bytes(), 0);
  if (!fd) return tl::unexpected(fd.error());
  segment_fd_ = std::move(*fd);
  auto mapping = Mapping::map_shared(segment_fd_.get(), layout_.segment_bytes(), "client rings");
  if (!mapping) return tl::unexpected(mapping.error());
  segment_ = std::move(*mapping);

  Result<void> done;
  if (use != HugepageUse::kOff) {
    done = map_data(round_up(data_bytes, kHugePageBytes), true);
    if (!done && use == HugepageUse::kRequire) {
      done.error().what +=
          "; reserve hugepages (vm.nr_hugepages) or set client.hugepages = \"prefer\"";
      return done;
    }
  }
  if (use == HugepageUse::kOff || !done) done = map_data(round_up(data_bytes, kPageBytes), false);
  if (!done) return done;

  segment_guard_ = FaultGuard(segment_.data(), segment_.size(), kPageBytes, &condemned_);
  data_guard_ = FaultGuard(data_.data(), data_.size(), page_bytes_, &condemned_);

  SegmentHeader header{};
  header.magic = kSegmentMagic;
  header.abi_major = kAbiMajor;
  header.abi_minor = kAbiMinor;
  header.rings = layout_.rings;
  header.submission_entries = layout_.submission_entries;
  header.completion_entries = layout_.completion_entries;
  header.ring_bytes = layout_.ring_bytes();
  header.data_bytes = data_.size();
  std::memcpy(segment_.data(), &header, sizeof header);
  return {};
}

Result<void> ClientSegment::map_data(std::uint64_t bytes, bool huge) {
  auto fd = make_memfd("kelp-data", bytes, huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0U);
  if (!fd) return tl::unexpected(fd.error());
  // Mapping hugetlb memory reserves its pages: too small a pool fails here and not at a touch.
  auto mapping = Mapping::map_shared(fd->get(), bytes, huge ? "hugepages" : "client data");
  if (!mapping) return tl::unexpected(mapping.error());
  data_fd_ = std::move(*fd);
  data_ = std::move(*mapping);
  page_bytes_ = huge ? kHugePageBytes : kPageBytes;
  // Without a pool transparent hugepages may still come; a kernel that has none says EINVAL.
  if (!huge) ::madvise(data_.data(), data_.size(), MADV_HUGEPAGE);
  return {};
}

ClientSegment::~ClientSegment() {
  // A forked child of the client may keep both memfds alive for ever; their pages need not stay,
  // nor what was read into them.
  punch(segment_fd_.get(), segment_.size());
  punch(data_fd_.get(), data_.size());
}

}  // namespace kelp
