#include "dataplane/memory/client_segment.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "support/hugepages.h"

namespace {

using namespace kelp;

constexpr SegmentLayout kLayout{2, 4, 8};

std::unique_ptr<ClientSegment> make(std::uint64_t data_bytes, HugepageUse use = HugepageUse::kOff) {
  auto segment = ClientSegment::create(kLayout, data_bytes, use);
  REQUIRE(segment);
  return std::move(*segment);
}

TEST_CASE("a segment is rounded up to whole pages, zeroed, and says what it is") {
  const auto segment = make(5000);
  CHECK(segment->data_bytes() == 8192);
  CHECK(segment->page_bytes() == kPageBytes);
  SegmentHeader header;
  std::memcpy(&header, segment->ring_block(0) - kPageBytes, sizeof header);
  CHECK(header.magic == kSegmentMagic);
  CHECK(header.rings == 2);
  CHECK(header.data_bytes == 8192);
  CHECK(segment->ring_block(1) - segment->ring_block(0) ==
        static_cast<std::ptrdiff_t>(kLayout.ring_bytes()));
  const auto data = segment->resolve(0, 8192);
  REQUIRE(data);
  for (const std::byte byte : *data) CHECK(byte == std::byte{0});
}

TEST_CASE("only what lies inside the data area resolves, also near 2^64") {
  const auto segment = make(8192);
  CHECK(segment->resolve(0, 8192));
  CHECK(segment->resolve(8191, 1));
  CHECK(segment->resolve(8192, 0));
  CHECK_FALSE(segment->resolve(8192, 1));
  CHECK_FALSE(segment->resolve(0, 8193));
  CHECK_FALSE(segment->resolve(1, 8192));
  for (const std::uint32_t length : {0U, 1U, 4096U, 8192U, UINT32_MAX}) {
    CAPTURE(length);
    CHECK_FALSE(segment->resolve(UINT64_MAX, length));
    CHECK_FALSE(segment->resolve(UINT64_MAX - length + 1 - (length == 0 ? 1 : 0), length));
    CHECK_FALSE(segment->resolve(std::uint64_t{1} << 63, length));
  }
}

TEST_CASE("nobody can shrink, grow or unseal either memfd") {
  const auto segment = make(8192);
  for (const int fd : {segment->segment_fd(), segment->data_fd()}) {
    struct stat before {};
    REQUIRE(::fstat(fd, &before) == 0);
    CHECK(::ftruncate(fd, 0) != 0);
    CHECK(::ftruncate(fd, before.st_size - 4096) != 0);
    CHECK(::ftruncate(fd, before.st_size + 4096) != 0);
    CHECK(::fallocate(fd, 0, before.st_size, 4096) != 0);
    CHECK(::fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) != 0);
    CHECK((::fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    struct stat after {};
    REQUIRE(::fstat(fd, &after) == 0);
    CHECK(before.st_size == after.st_size);
  }
}

TEST_CASE("sizes that cannot be had are errors") {
  CHECK_FALSE(ClientSegment::create(kLayout, UINT64_MAX, HugepageUse::kOff));
  CHECK_FALSE(ClientSegment::create(kLayout, std::uint64_t{1} << 63, HugepageUse::kOff));
  CHECK_FALSE(ClientSegment::create(kLayout, std::uint64_t{1} << 60, HugepageUse::kPrefer));
}

TEST_CASE("holes a client punches into ordinary memory read as zeroes and condemn nobody") {
  const auto segment = make(1 << 20);
  const auto data = *segment->resolve(0, 1 << 20);
  std::memset(data.data(), 0x55, data.size());
  constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
  REQUIRE(::fallocate(segment->data_fd(), kPunch, 0, 1 << 20) == 0);
  REQUIRE(::fallocate(segment->segment_fd(), kPunch, 0,
                      static_cast<off_t>(kLayout.segment_bytes())) == 0);
  CHECK(data[5000] == std::byte{0});
  CHECK(*segment->ring_block(1) == std::byte{0});
  data[5000] = std::byte{1};
  CHECK_FALSE(segment->condemned());
}

TEST_CASE("the pages of a destroyed segment are gone, and a mapping that stays reads zeroes") {
  auto segment = make(1 << 20);
  std::memset(segment->resolve(0, 1 << 20)->data(), 0x55, 1 << 20);
  std::memset(segment->ring_block(0), 0x66, kLayout.ring_bytes());
  const std::size_t ring_bytes = kLayout.segment_bytes();
  const UniqueFd data_fd(::dup(segment->data_fd()));
  const UniqueFd rings_fd(::dup(segment->segment_fd()));
  // What a forked child of the client would have.
  const auto data = Mapping::map_shared(data_fd.get(), 1 << 20, "a child's data");
  const auto rings = Mapping::map_shared(rings_fd.get(), ring_bytes, "a child's rings");
  REQUIRE((data && rings));
  REQUIRE(data->data()[4096] == std::byte{0x55});
  REQUIRE(rings->data()[kPageBytes] == std::byte{0x66});
  segment.reset();
  for (const int fd : {data_fd.get(), rings_fd.get()}) {
    struct stat facts {};
    REQUIRE(::fstat(fd, &facts) == 0);
    CHECK(facts.st_blocks == 0);
  }
  const auto is_zero = [](const Mapping& mapping) {
    return std::all_of(mapping.data(), mapping.data() + mapping.size(),
                       [](std::byte byte) { return byte == std::byte{0}; });
  };
  CHECK(is_zero(*data));
  CHECK(is_zero(*rings));
}

TEST_CASE("hugepages that are required and not there are an error that says what to do") {
  if (test::free_hugepages() != 0) {
    MESSAGE("skipped: this machine has free hugepages");
    return;
  }
  const auto segment = ClientSegment::create(kLayout, 4096, HugepageUse::kRequire);
  REQUIRE_FALSE(segment);
  CHECK(segment.error().what.find("vm.nr_hugepages") != std::string::npos);
  const auto preferred = ClientSegment::create(kLayout, 4096, HugepageUse::kPrefer);
  REQUIRE(preferred);
  CHECK((*preferred)->page_bytes() == kPageBytes);
}

TEST_CASE("a hole in hugepages, with the pool empty, condemns the client and nothing else") {
  if (test::free_hugepages() == 0) {
    MESSAGE("skipped: no free hugepages here (scripts/hugepages.sh reserves some)");
    return;
  }
  const auto segment = make(4096, HugepageUse::kRequire);
  const auto innocent = make(4096);
  CHECK(segment->page_bytes() == 2 << 20);
  const auto data = *segment->resolve(0, 2 << 20);
  data[0] = std::byte{1};
  // Our own mapping's reservation goes with the hole; whatever is left goes to these.
  REQUIRE(::fallocate(segment->data_fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2 << 20) ==
          0);
  const std::uint64_t rest = test::free_hugepages() * (std::uint64_t{2} << 20);
  void* hog = ::mmap(nullptr, rest, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
  REQUIRE(hog != MAP_FAILED);
  data[100] = std::byte{2};
  CHECK(data[100] == std::byte{2});
  CHECK(segment->condemned());
  CHECK_FALSE(innocent->condemned());
  ::munmap(hog, rest);
}

}  // namespace
