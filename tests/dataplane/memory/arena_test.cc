#include "dataplane/memory/arena.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

using kelp::Arena;

TEST_CASE("blocks of every length lie in the memory, side by side, and are as long as asked for") {
  std::vector<std::byte> memory(4 * Arena::kChunkBytes);
  Arena arena(memory);
  std::map<const std::byte*, std::size_t> taken;
  std::mt19937 random(7);
  for (int turn = 0; turn < 20'000; ++turn) {
    const std::size_t bytes = 1 + random() % (std::size_t{1} << random() % 21);
    if (random() % 3 != 0) {
      const auto block = arena.take(bytes);
      if (!block) continue;
      REQUIRE(block->size() == bytes);
      REQUIRE(block->data() >= memory.data());
      REQUIRE(block->data() + bytes <= memory.data() + memory.size());
      const auto after = taken.upper_bound(block->data());
      if (after != taken.end()) REQUIRE(block->data() + bytes <= after->first);
      if (after != taken.begin()) {
        const auto before = std::prev(after);
        REQUIRE(before->first + before->second <= block->data());
      }
      taken.emplace(block->data(), bytes);
    } else if (!taken.empty()) {
      const auto which = std::next(taken.begin(), static_cast<long>(random() % taken.size()));
      // By anything inside of it.
      arena.give_back(which->first + random() % which->second);
      taken.erase(which);
    }
  }
  for (const auto& [block, bytes] : taken) arena.give_back(block);
  CHECK(arena.taken_bytes() == 0);
}

TEST_CASE("an arena is lent out to the last block, and what comes back serves other lengths") {
  std::vector<std::byte> memory(2 * Arena::kChunkBytes + 100);
  Arena arena(memory);
  for (int round = 0; round < 3; ++round) {
    std::vector<std::byte*> blocks;
    while (const auto block = arena.take(4096)) blocks.push_back(block->data());
    CHECK(blocks.size() == 512);
    CHECK_FALSE(arena.take(1));
    CHECK(arena.taken_bytes() == 2 * Arena::kChunkBytes);
    arena.give_back(blocks.back());
    CHECK(arena.take(1)->data() == blocks.back());
    CHECK_FALSE(arena.take(4097));
    for (std::byte* const block : blocks) arena.give_back(block);
    const auto first = arena.take(Arena::kChunkBytes);
    const auto second = arena.take(Arena::kChunkBytes - 1);
    REQUIRE(first);
    REQUIRE(second);
    CHECK_FALSE(arena.take(4096));
    arena.give_back(first->data());
    arena.give_back(second->data());
  }
}

TEST_CASE("lengths that no block has are refused") {
  std::vector<std::byte> memory(Arena::kChunkBytes);
  Arena arena(memory);
  CHECK_FALSE(arena.take(0));
  CHECK_FALSE(arena.take(Arena::kChunkBytes + 1));
  Arena nothing{std::span<std::byte>()};
  CHECK_FALSE(nothing.take(1));
}
