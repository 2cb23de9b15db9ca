// A bell rings before the call that makes its descriptor readable returns, and again after hush().
#include "dataplane/transport/bell.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <string>
#include <thread>

#include "shm_ring/unique_fd.h"
#include "support/temp_dir.h"

using namespace kelp;

TEST_CASE("a bell on inotify rings for each close, from whatever thread, as soon as it returned") {
  const test::TempDir dir;
  const std::string path = dir.path() / "file";
  const UniqueFd made(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600));
  const UniqueFd inotify(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  REQUIRE(::inotify_add_watch(inotify.get(), path.c_str(), IN_CLOSE_WRITE) >= 0);
  const auto bell = Bell::on(inotify.get());
  if (bell == nullptr) {
    MESSAGE("skipped: no io_uring here, or one that does not ring at once");
    return;
  }
  const auto close_one = [&] { UniqueFd(::open(path.c_str(), O_WRONLY | O_CLOEXEC)); };
  const auto drain = [&] {
    bell->hush();
    std::array<char, 4096> events;
    int reads = 0;
    while (::read(inotify.get(), events.data(), events.size()) > 0) ++reads;
    return reads;
  };
  for (int round = 0; round < 1000; ++round) {
    REQUIRE_FALSE(bell->has_rung());
    if (round % 2 == 0) {
      close_one();
    } else {
      std::thread(close_one).join();
    }
    REQUIRE(bell->has_rung());
    REQUIRE(drain() == 1);
  }
}

TEST_CASE("a bell made late has rung already, and one that is hushed without reading rings anew") {
  const UniqueFd event(::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK));
  const auto bell = Bell::on(event.get());
  if (bell == nullptr) return;
  CHECK(bell->has_rung());
  bell->hush();
  const std::uint64_t one = 1;
  REQUIRE(::write(event.get(), &one, sizeof one) == sizeof one);
  CHECK(bell->has_rung());
}
