#include "dataplane/volume/needle_map.h"

#include <doctest/doctest.h>

#include <random>
#include <unordered_map>
#include <vector>

#include "dataplane/volume/index_log.h"
#include "support/volume_writer.h"

namespace {

using namespace kelp;

IndexRow put_row(std::uint64_t id, std::uint64_t units, std::int32_t size = 100) {
  return {NeedleId{id}, units * kNeedleAlignment, size};
}
IndexRow delete_row(std::uint64_t id) {
  return {NeedleId{id}, 0, -1};
}

/// The map beside one nobody doubts.
struct Pair {
  explicit Pair(std::uint64_t most_bytes = UINT64_MAX) : map(most_bytes) {}

  bool apply(const IndexRow& row) {
    if (!map.apply(row)) return false;
    const auto key = static_cast<std::uint64_t>(row.id);
    if (row.is_delete()) {
      model.erase(key);
    } else {
      model[key] = {row.offset_bytes, row.size};
    }
    return true;
  }

  void check_equal() const {
    REQUIRE(map.size() == model.size());
    std::uint64_t wrong = 0;
    for (const auto& [key, location] : model) wrong += map.find(NeedleId{key}) == location ? 0 : 1;
    REQUIRE(wrong == 0);
  }

  NeedleMap map;
  std::unordered_map<std::uint64_t, NeedleLocation> model;
};

TEST_CASE("an empty map holds nothing and takes deletes") {
  Pair pair;
  CHECK(pair.map.find(NeedleId{0}) == std::nullopt);
  CHECK(pair.map.find(NeedleId{7}) == std::nullopt);
  CHECK(pair.apply(delete_row(0)));
  CHECK(pair.apply(delete_row(7)));
  CHECK(pair.map.size() == 0);
  CHECK(pair.map.memory_bytes() == 0);
}

TEST_CASE("the smallest and the largest ids, offsets and sizes come back as they were") {
  Pair pair;
  constexpr std::uint64_t kUnits[] = {1, UINT32_MAX, std::uint64_t{1} << 32,
                                      (std::uint64_t{1} << 40) - 1};
  for (const std::uint64_t id : {std::uint64_t{0}, std::uint64_t{1}, UINT64_MAX}) {
    for (const std::uint64_t units : kUnits) {
      for (const std::int32_t size : {0, 1, INT32_MAX}) {
        CHECK(pair.apply(put_row(id, units, size)));
        pair.check_equal();
      }
    }
  }
  CHECK(pair.map.size() == 3);
}

TEST_CASE("random puts, overwrites and deletes leave what a plain map holds") {
  for (const std::uint64_t ids : {1u, 50u, 3'000u, 50'000u}) {
    CAPTURE(ids);
    Pair pair;
    std::mt19937_64 random(ids);
    std::uint64_t wrong = 0;
    for (int i = 0; i < 100'000; ++i) {
      const std::uint64_t id = random() % ids;
      const bool put = random() % 3 != 0;
      pair.apply(put ? put_row(id, 1 + random() % 1'000'000, i) : delete_row(id));
      wrong += pair.map.find(NeedleId{id}).has_value() == put ? 0 : 1;
    }
    CHECK(wrong == 0);
    pair.check_equal();
    for (std::uint64_t id = 0; id < ids; ++id) {
      wrong += pair.map.find(NeedleId{id}).has_value() == pair.model.contains(id) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("deleting everything from a grown map leaves nothing, and it fills again") {
  Pair pair;
  for (int round = 0; round < 2; ++round) {
    for (std::uint64_t id = 1; id <= 20'000; ++id) pair.apply(put_row(id, id));
    pair.check_equal();
    for (std::uint64_t id = 20'000; id > 0; --id) pair.apply(delete_row(id));
    CHECK(pair.map.size() == 0);
    CHECK(pair.map.find(NeedleId{1}) == std::nullopt);
  }
}

TEST_CASE("whatever pattern the ids have, the memory per needle stays small while the map grows") {
  constexpr std::uint64_t kNeedles = 120'000;
  const std::vector<std::uint64_t (*)(std::uint64_t)> patterns{
      [](std::uint64_t i) { return i; },
      [](std::uint64_t i) { return i << 32; },
      [](std::uint64_t i) { return i << 44; },
      [](std::uint64_t i) { return i * 0x9e3779b97f4a7c15; },
      [](std::uint64_t i) { return (i << 22) | (i % 7); },
      [](std::uint64_t i) { return ~i; },
  };
  for (std::size_t pattern = 0; pattern < patterns.size(); ++pattern) {
    CAPTURE(pattern);
    Pair pair;
    std::uint64_t refused = 0;
    for (std::uint64_t i = 1; i <= kNeedles; ++i) {
      refused += pair.apply(put_row(patterns[pattern](i), i)) ? 0 : 1;
      if (i > 30'000 && i % 1000 == 0) REQUIRE(pair.map.memory_bytes() <= 26 * i);
    }
    CHECK(refused == 0);
    pair.check_equal();
  }
}

TEST_CASE("what was expected wrongly changes no answer") {
  for (const std::uint64_t expected : {std::uint64_t{0}, std::uint64_t{10}, std::uint64_t{100'000},
                                       std::uint64_t{50'000'000}, UINT64_MAX}) {
    CAPTURE(expected);
    Pair pair;
    pair.map.expect(expected);
    for (std::uint64_t id = 0; id < 60'000; ++id) pair.apply(put_row(id, id + 1));
    CHECK(pair.map.size() == 60'000);
    pair.check_equal();
  }
}

TEST_CASE(
    "a map that may not grow refuses new needles, keeps the others and still takes the rest") {
  Pair pair(1'000'000);
  std::uint64_t id = 1;
  while (pair.apply(put_row(id, id))) ++id;
  CHECK(id > 30'000);
  pair.check_equal();
  CHECK(pair.map.find(NeedleId{id}) == std::nullopt);
  CHECK(pair.apply(put_row(1, 77)));  // an overwrite needs no room
  CHECK(pair.apply(delete_row(2)));
  pair.check_equal();
  // Some segments have room left, others do not: whichever way it goes, nothing else changes.
  for (std::uint64_t more = id; more < id + 20'000; ++more) pair.apply(put_row(more, more));
  pair.check_equal();
}

TEST_CASE("every single allocation may be the one that fails") {
  for (std::uint64_t most_bytes = 0; most_bytes < 120'000; most_bytes += 2176) {
    Pair pair(most_bytes);
    for (std::uint64_t id = 0; id < 6000; ++id) pair.apply(put_row(id, id + 1));
    pair.check_equal();
    CHECK(pair.map.memory_bytes() <= 2 * most_bytes + 1024);
  }
}

TEST_CASE("a moved map takes its needles along") {
  Pair pair;
  for (std::uint64_t id = 0; id < 10'000; ++id) REQUIRE(pair.apply(put_row(id, id + 1)));
  NeedleMap moved(std::move(pair.map));
  pair.map = std::move(moved);
  pair.check_equal();
}

TEST_CASE("a log says which row had no memory, and goes on there when there is some") {
  std::vector<std::byte> rows;
  for (std::uint64_t id = 1; id <= 5000; ++id) {
    const auto row = test::row_of(put_row(id, id), OffsetWidth::kFive);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  IndexLog log(3, NeedleMap(64 * 1024));
  log.set_width(OffsetWidth::kFive);
  const IndexLog::Applied applied = log.apply(rows, false);
  CHECK(applied.out_of_memory);
  CHECK(applied.rows > 1000);
  CHECK(applied.rows < 5000);
  CHECK(log.consumed_bytes() == applied.rows * 17);
  CHECK(log.map().size() == applied.rows);
  CHECK(log.map().find(NeedleId{applied.rows}).has_value());
  CHECK(parse_index_row(log.last_row().data(), OffsetWidth::kFive).id == NeedleId{applied.rows});
  CHECK(log.apply(std::span(rows).subspan(log.consumed_bytes()), false).rows == 0);
}

}  // namespace
