#include "shm_ring/wake_flag.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "shm_ring/unique_fd.h"

namespace {

using namespace kelp;

TEST_CASE("one arming gives one wake-up, however many publish") {
  std::uint32_t flag = 0;
  CHECK_FALSE(take_wake_flag(&flag));
  arm_wake_flag(&flag);
  CHECK(take_wake_flag(&flag));
  CHECK_FALSE(take_wake_flag(&flag));
  arm_wake_flag(&flag);
  disarm_wake_flag(&flag);
  CHECK_FALSE(take_wake_flag(&flag));
}

TEST_CASE("of many publishers at once exactly one takes an armed flag") {
  constexpr int kRounds = 300;
  constexpr int kPublishers = 3;
  std::uint32_t flag = 0;
  std::atomic<int> round{0};
  std::atomic<int> taken{0};
  std::atomic<int> finished{0};
  std::vector<std::thread> publishers;
  for (int i = 0; i < kPublishers; ++i) {
    publishers.emplace_back([&] {
      for (int mine = 1; mine <= kRounds; ++mine) {
        while (round.load() < mine) std::this_thread::yield();
        announce_batch();
        if (take_wake_flag(&flag)) taken.fetch_add(1);
        finished.fetch_add(1);
      }
    });
  }
  for (int each = 1; each <= kRounds; ++each) {
    arm_wake_flag(&flag);
    round.store(each);
    while (finished.load() < each * kPublishers) std::this_thread::yield();
    CHECK(taken.load() == each);
  }
  for (std::thread& each : publishers) each.join();
}

/// One end of a ping-pong: a word the peer publishes to, and a descriptor it wakes.
struct Side {
  std::atomic<std::uint32_t> word{0};
  std::uint32_t sleeps = 0;
  UniqueFd wake{::eventfd(0, EFD_CLOEXEC)};

  void publish(std::uint32_t value) {
    word.store(value, std::memory_order_relaxed);
    announce_batch();
    if (!take_wake_flag(&sleeps)) return;
    const std::uint64_t one = 1;
    REQUIRE(::write(wake.get(), &one, sizeof one) == sizeof one);
  }
  /// False: nothing came in the time of a very patient test, so a wake-up was lost.
  bool wait_for(std::uint32_t value) {
    while (word.load(std::memory_order_relaxed) != value) {
      arm_wake_flag(&sleeps);
      if (word.load(std::memory_order_relaxed) != value) {
        pollfd entry{wake.get(), POLLIN, 0};
        if (::poll(&entry, 1, 30'000) == 0) return false;
        std::uint64_t count;
        if (::read(wake.get(), &count, sizeof count) != sizeof count) return false;
      }
      disarm_wake_flag(&sleeps);
    }
    return true;
  }
};

TEST_CASE("two sleepers that wake each other never lose a wake-up") {
  constexpr std::uint32_t kRounds = 100'000;
  Side ping;
  Side pong;
  std::atomic<bool> lost{false};
  std::thread peer([&] {
    for (std::uint32_t i = 1; i <= kRounds && !lost.load(); ++i) {
      if (!ping.wait_for(i)) lost.store(true);
      pong.publish(i);
    }
  });
  for (std::uint32_t i = 1; i <= kRounds && !lost.load(); ++i) {
    ping.publish(i);
    if (!pong.wait_for(i)) lost.store(true);
  }
  peer.join();
  CHECK_FALSE(lost.load());
}

}  // namespace
