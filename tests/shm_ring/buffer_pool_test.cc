#include "shm_ring/buffer_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <random>
#include <thread>
#include <vector>

namespace {

using kelp::BufferPool;

constexpr std::uint64_t kPage = 4096;

TEST_CASE("allocations are whole pages and never overlap") {
  BufferPool pool(16 * kPage);
  CHECK(pool.alloc(1) == 0);
  CHECK(pool.alloc(kPage) == kPage);
  CHECK(pool.alloc(kPage + 1) == 2 * kPage);
  CHECK(pool.alloc(1) == 4 * kPage);
  CHECK(pool.free_bytes() == 11 * kPage);
}

TEST_CASE("an exhausted pool says no and serves again after a free") {
  BufferPool pool(4 * kPage);
  CHECK_FALSE(pool.alloc(5 * kPage));
  CHECK_FALSE(pool.alloc(0));
  CHECK_FALSE(pool.alloc(UINT64_MAX));
  const auto whole = pool.alloc(4 * kPage);
  REQUIRE(whole);
  CHECK_FALSE(pool.alloc(1));
  CHECK(pool.free(*whole));
  CHECK(pool.alloc(4 * kPage));
}

TEST_CASE("a pool smaller than a page serves nothing") {
  BufferPool pool(kPage - 1);
  CHECK_FALSE(pool.alloc(1));
  CHECK_FALSE(pool.free(0));
  CHECK(pool.begin_write(0, 1) == KELP_BAD_BUFFER);
}

TEST_CASE("neighbours that are freed in any order become one gap") {
  const std::vector<std::vector<std::size_t>> orders{{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  for (const auto& order : orders) {
    BufferPool pool(6 * kPage);
    std::vector<std::uint64_t> taken;
    for (int i = 0; i < 3; ++i) taken.push_back(*pool.alloc(2 * kPage));
    for (const std::size_t which : order) CHECK(pool.free(taken[which]));
    CHECK(pool.alloc(6 * kPage) == 0);
  }
}

TEST_CASE("only the start of a live allocation can be freed, and once") {
  BufferPool pool(8 * kPage);
  const std::uint64_t buffer = *pool.alloc(3 * kPage);
  CHECK_FALSE(pool.free(buffer + 1));
  CHECK_FALSE(pool.free(buffer + kPage));
  CHECK_FALSE(pool.free(5 * kPage));
  CHECK_FALSE(pool.free(8 * kPage));
  CHECK_FALSE(pool.free(UINT64_MAX - kPage + 1));
  CHECK(pool.free(buffer));
  CHECK_FALSE(pool.free(buffer));
  CHECK(pool.free_bytes() == 8 * kPage);
}

TEST_CASE("a write must lie inside one live allocation") {
  BufferPool pool(8 * kPage);
  const std::uint64_t first = *pool.alloc(2 * kPage);
  const std::uint64_t second = *pool.alloc(2 * kPage);
  CHECK(pool.begin_write(first, 2 * kPage) == KELP_OK);
  CHECK(pool.begin_write(first + kPage + 1, kPage - 1) == KELP_OK);
  CHECK(pool.begin_write(second - 1, 1) == KELP_OK);
  CHECK(pool.begin_write(second - 1, 2) == KELP_BAD_BUFFER);
  CHECK(pool.begin_write(first, 2 * kPage + 1) == KELP_BAD_BUFFER);
  CHECK(pool.begin_write(first, UINT32_MAX) == KELP_BAD_BUFFER);
  CHECK(pool.begin_write(4 * kPage, 1) == KELP_BAD_BUFFER);
  CHECK(pool.begin_write(8 * kPage, 1) == KELP_BAD_BUFFER);
  CHECK(pool.begin_write(UINT64_MAX, 1) == KELP_BAD_BUFFER);
}

TEST_CASE("a buffer freed under a write is given back by the write's end, not before") {
  BufferPool pool(4 * kPage);
  const std::uint64_t buffer = *pool.alloc(4 * kPage);
  REQUIRE(pool.begin_write(buffer, 100) == KELP_OK);
  REQUIRE(pool.begin_write(buffer + 200, 100) == KELP_OK);
  CHECK(pool.free(buffer));
  CHECK_FALSE(pool.free(buffer));
  CHECK(pool.begin_write(buffer, 1) == KELP_BAD_BUFFER);
  CHECK_FALSE(pool.alloc(1));
  pool.end_write(buffer);
  CHECK_FALSE(pool.alloc(1));
  pool.end_write(buffer + 200);
  CHECK(pool.free_bytes() == 4 * kPage);
  CHECK(pool.alloc(4 * kPage));
}

TEST_CASE("a held range refuses what touches it and nothing else") {
  BufferPool pool(4 * kPage);
  const std::uint64_t buffer = *pool.alloc(4 * kPage);
  REQUIRE(pool.begin_write(buffer + 1000, 500) == KELP_OK);
  pool.hold(buffer + 1000, 500);
  CHECK(pool.begin_write(buffer + 999, 1) == KELP_OK);
  CHECK(pool.begin_write(buffer + 1500, 1) == KELP_OK);
  CHECK(pool.begin_write(buffer + 999, 2) == KELP_BUFFER_BUSY);
  CHECK(pool.begin_write(buffer + 1499, 1) == KELP_BUFFER_BUSY);
  CHECK(pool.begin_write(buffer, 4 * kPage) == KELP_BUFFER_BUSY);
  pool.unhold(buffer + 1000, 500);
  pool.end_write(buffer + 1000);
  CHECK(pool.begin_write(buffer, 4 * kPage) == KELP_OK);
}

TEST_CASE("two holds of one range need two releases") {
  BufferPool pool(kPage);
  const std::uint64_t buffer = *pool.alloc(kPage);
  REQUIRE(pool.begin_write(buffer, 10) == KELP_OK);
  REQUIRE(pool.begin_write(buffer, 10) == KELP_OK);
  pool.hold(buffer, 10);
  pool.hold(buffer, 10);
  pool.unhold(buffer, 10);
  CHECK(pool.begin_write(buffer, 10) == KELP_BUFFER_BUSY);
  pool.unhold(buffer, 10);
  CHECK(pool.begin_write(buffer, 10) == KELP_OK);
}

TEST_CASE("a refused write leaves no count behind") {
  BufferPool pool(kPage);
  const std::uint64_t buffer = *pool.alloc(kPage);
  REQUIRE(pool.begin_write(buffer, 10) == KELP_OK);
  pool.hold(buffer, 10);
  for (int i = 0; i < 5; ++i) CHECK(pool.begin_write(buffer, 10) == KELP_BUFFER_BUSY);
  pool.unhold(buffer, 10);
  pool.end_write(buffer);
  CHECK(pool.free(buffer));
  CHECK(pool.free_bytes() == kPage);
}

TEST_CASE("threads that allocate, write and free leave the pool whole") {
  constexpr std::uint64_t kPages = 64;
  BufferPool pool(kPages * kPage);
  std::vector<std::atomic<int>> users(kPages);
  std::atomic<int> wrong{0};
  const auto work = [&](unsigned seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 20'000; ++i) {
      const std::uint64_t pages = 1 + random() % 8;
      const auto buffer = pool.alloc(pages * kPage);
      if (!buffer) continue;
      for (std::uint64_t page = 0; page < pages; ++page) {
        if (users[*buffer / kPage + page].fetch_add(1) != 0) wrong.fetch_add(1);
      }
      if (pool.begin_write(*buffer, static_cast<std::uint32_t>(pages * kPage)) != KELP_OK) {
        wrong.fetch_add(1);
      }
      for (std::uint64_t page = 0; page < pages; ++page) users[*buffer / kPage + page].fetch_sub(1);
      if (random() % 2 == 0) {
        pool.end_write(*buffer);
        if (!pool.free(*buffer)) wrong.fetch_add(1);
      } else {
        if (!pool.free(*buffer)) wrong.fetch_add(1);
        pool.end_write(*buffer);
      }
    }
  };
  std::thread other(work, 1);
  std::thread third(work, 2);
  work(3);
  other.join();
  third.join();
  CHECK(wrong.load() == 0);
  CHECK(pool.free_bytes() == kPages * kPage);
  CHECK(pool.alloc(kPages * kPage));
}

TEST_CASE("the last of a write's end and a free, on two threads, gives the buffer back once") {
  BufferPool pool(kPage);
  for (int i = 0; i < 3000; ++i) {
    const auto buffer = pool.alloc(kPage);
    REQUIRE(buffer);
    REQUIRE(pool.begin_write(*buffer, 1) == KELP_OK);
    std::thread other([&] { pool.end_write(*buffer); });
    CHECK(pool.free(*buffer));
    other.join();
    CHECK(pool.free_bytes() == kPage);
  }
}

TEST_CASE("a buffer submitted on one thread while it is freed on another stays in bounds") {
  BufferPool pool(kPage);
  std::atomic<std::uint64_t> round{0};
  constexpr std::uint64_t kRounds = 20'000;
  std::thread submitter([&] {
    while (round.load() < kRounds) {
      if (pool.begin_write(0, 1) == KELP_OK) pool.end_write(0);
    }
  });
  for (std::uint64_t i = 0; i < kRounds; ++i) {
    while (!pool.alloc(kPage)) std::this_thread::yield();
    CHECK(pool.free(0));
    round.store(i + 1);
  }
  submitter.join();
  CHECK(pool.free_bytes() == kPage);
}

}  // namespace
