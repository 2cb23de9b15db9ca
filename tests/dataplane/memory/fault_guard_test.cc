#include "dataplane/memory/fault_guard.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <vector>

#include "shm_ring/layout.h"
#include "shm_ring/mapping.h"
#include "shm_ring/unique_fd.h"

namespace {

using namespace kelp;

/// A mapping whose file can be cut, which faults as a hole in hugepages does.
struct Cuttable {
  explicit Cuttable(std::size_t page_count)
      : fd(::memfd_create("test", MFD_CLOEXEC)), bytes(page_count * kPageBytes) {
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
    auto mapped = Mapping::map_shared(fd.get(), bytes, "test memory");
    REQUIRE(mapped);
    mapping = std::move(*mapped);
  }
  void cut_to(std::size_t pages) {
    REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(pages * kPageBytes)) == 0);
  }
  volatile std::byte& at(std::size_t offset) { return mapping.data()[offset]; }

  UniqueFd fd;
  std::size_t bytes;
  Mapping mapping;
};

/// The signal a child that runs `body` ends with; 0 if it exits.
template <class Body>
int signal_of(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_CASE("a fault in a guarded region condemns that region and reads as zeroes") {
  Cuttable one(4);
  Cuttable two(4);
  std::atomic<bool> one_condemned{false};
  std::atomic<bool> two_condemned{false};
  const FaultGuard guard_one(one.mapping.data(), one.bytes, kPageBytes, &one_condemned);
  const FaultGuard guard_two(two.mapping.data(), two.bytes, kPageBytes, &two_condemned);
  one.at(2 * kPageBytes) = std::byte{7};
  two.at(2 * kPageBytes) = std::byte{8};
  one.cut_to(1);
  CHECK(one.at(2 * kPageBytes) == std::byte{0});
  CHECK(one_condemned.load());
  CHECK_FALSE(two_condemned.load());
  CHECK(two.at(2 * kPageBytes) == std::byte{8});
  one.at(4 * kPageBytes - 1) = std::byte{9};
  CHECK(one.at(4 * kPageBytes - 1) == std::byte{9});
}

TEST_CASE("a guard moves with its owner and ends with it") {
  Cuttable memory(2);
  std::atomic<bool> condemned{false};
  {
    FaultGuard outer;
    {
      FaultGuard inner(memory.mapping.data(), memory.bytes, kPageBytes, &condemned);
      outer = std::move(inner);
    }
    memory.cut_to(1);
    memory.at(kPageBytes) = std::byte{1};
    CHECK(condemned.load());
  }
  Cuttable other(2);
  { const FaultGuard brief(other.mapping.data(), other.bytes, kPageBytes, &condemned); }
  other.cut_to(0);
  CHECK(signal_of([&] {
          // MADV_DONTFORK: the child maps it for itself.
          void* again = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, other.fd.get(), 0);
          static_cast<void>(*static_cast<volatile char*>(again));
        }) == SIGBUS);
}

TEST_CASE("a fault outside every guarded region still kills") {
  Cuttable guarded(1);
  std::atomic<bool> condemned{false};
  const FaultGuard guard(guarded.mapping.data(), guarded.bytes, kPageBytes, &condemned);
  // Mapped here: in the child the guarded range is free, and would be the first choice.
  void* elsewhere = ::mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, guarded.fd.get(), 0);
  REQUIRE(elsewhere != MAP_FAILED);
  guarded.cut_to(0);
  CHECK(signal_of([&] { static_cast<void>(*static_cast<volatile char*>(elsewhere)); }) == SIGBUS);
  CHECK_FALSE(condemned.load());
  ::munmap(elsewhere, kPageBytes);
}

TEST_CASE("a SIGBUS that someone sends kills as it would have without a guard") {
  Cuttable guarded(1);
  std::atomic<bool> condemned{false};
  const FaultGuard guard(guarded.mapping.data(), guarded.bytes, kPageBytes, &condemned);
  CHECK(signal_of([] { ::kill(::getpid(), SIGBUS); }) == SIGBUS);
}

TEST_CASE("guards come and go by the thousand") {
  Cuttable memory(2);
  std::atomic<bool> condemned{false};
  std::atomic<bool> others{false};
  std::vector<std::byte> region(64);
  for (int i = 0; i < 20'000; ++i) {
    const FaultGuard brief(region.data(), region.size(), kPageBytes, &others);
  }
  const FaultGuard guard(memory.mapping.data(), memory.bytes, kPageBytes, &condemned);
  memory.cut_to(1);
  CHECK(memory.at(kPageBytes) == std::byte{0});
  CHECK(condemned.load());
  CHECK_FALSE(others.load());
}

}  // namespace
