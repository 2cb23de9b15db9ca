// Holes in hugepages while the pool is really empty: reserves hugepages, takes them all, and puts
// the pool back as it was.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <string>

#include "support/hugepages.h"
#include "support/raw_client.h"
#include "support/served_attach.h"
#include "support/small_volume.h"

namespace {

using namespace kelp;
using namespace kelp::test;

constexpr std::uint64_t kHugeBytes = 2 << 20;

/// While it exists there are `pages` free hugepages more, if the kernel gives them.
class ReservedHugepages {
 public:
  explicit ReservedHugepages(std::uint64_t pages) : before_(value()) {
    set(before_ + pages);
    enough_ = free_hugepages() >= pages;
  }
  ~ReservedHugepages() { set(before_); }
  bool enough() const { return enough_; }

 private:
  static constexpr const char* kPath = "/proc/sys/vm/nr_hugepages";
  static std::uint64_t value() {
    std::uint64_t pages = 0;
    std::ifstream(kPath) >> pages;
    return pages;
  }
  static void set(std::uint64_t pages) { std::ofstream(kPath) << pages; }

  const std::uint64_t before_;
  bool enough_ = false;
};

/// Takes every free hugepage.
class Hog {
 public:
  Hog()
      : bytes_(free_hugepages() * kHugeBytes),
        memory_(bytes_ == 0
                    ? nullptr
                    : ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0)) {}
  ~Hog() {
    if (bytes_ != 0) ::munmap(memory_, bytes_);
  }

 private:
  const std::uint64_t bytes_;
  void* const memory_;
};

TEST_CASE("holes in hugepages with the pool empty cut off their client, and others read on") {
  const ReservedHugepages reserved(4);
  if (!reserved.enough()) {
    MESSAGE("skipped: cannot reserve hugepages (needs root and contiguous memory)");
    return;
  }
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  const auto small = pattern(3000, 1);
  const kelp_fid fid = volume.put(1, 7, small);
  WorkerOptions options;
  options.loader.directories = {{dir.path().string(), ""}};
  AttachLimits limits;
  limits.hugepages = HugepageUse::kRequire;
  ServedAttach served(limits, options);
  TestClient witness(served.run_dir(), 1);
  REQUIRE(witness.read_when_served(fid).status == KELP_OK);
  RawClient hostile(served.socket_path(), 2, kHugeBytes);
  REQUIRE(hostile.reply.data_page_bytes == kHugeBytes);
  std::memset(hostile.data.data(), 1, hostile.data.size());

  // The hole first: the page it gives back is taken, too.
  REQUIRE(::fallocate(hostile.fds[1].get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                      static_cast<off_t>(kHugeBytes)) == 0);
  const Hog hog;
  REQUIRE(free_hugepages() == 0);
  Submission entry{};
  entry.op = OpCode::kRead;
  entry.volume = 3;
  entry.needle = 1;
  entry.cookie = 7;
  entry.length_bytes = 4096;
  hostile.put(0, entry, 0);
  const std::uint64_t one = 1;
  static_cast<void>(!::write(hostile.fds[4].get(), &one, sizeof one));
  CHECK(eventually([&] { return served.clients() == 1; }));  // cut off, and its memory gone
  CHECK(served.worker().counters().clients_condemned.value() == 1);
  CHECK(served.worker().counters().rings_condemned.value() == 2);
  for (int i = 0; i < 100; ++i) {
    REQUIRE(witness.run(witness.read(fid)).status == KELP_OK);
    REQUIRE(std::memcmp(witness.buffer, small.data(), small.size()) == 0);
  }
}

}  // namespace
