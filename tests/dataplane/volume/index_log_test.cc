#include "dataplane/volume/index_log.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <utility>
#include <vector>

#include "support/volume_writer.h"

using kelp::IndexLog;
using kelp::IndexRow;
using kelp::NeedleId;
using kelp::NeedleLocation;
using kelp::NeedleMap;
using kelp::OffsetWidth;
using kelp::RowPartitions;
using kelp::test::row_of;

namespace {

constexpr OffsetWidth kBothWidths[] = {OffsetWidth::kFour, OffsetWidth::kFive};

/// A log of one width, fed row by row.
struct Fed {
  explicit Fed(OffsetWidth width, std::uint8_t version = 3) : Fed(width, IndexLog(version)) {}
  Fed(OffsetWidth width, IndexLog made) : log(std::move(made)) { log.set_width(width); }

  IndexLog::Applied feed(const std::vector<IndexRow>& rows, bool more_follows = false) {
    std::vector<std::byte> bytes;
    for (const IndexRow& row : rows) {
      const auto encoded = row_of(row, log.width());
      bytes.insert(bytes.end(), encoded.begin(), encoded.end());
    }
    return log.apply(bytes, more_follows);
  }
  std::optional<NeedleLocation> find(std::uint64_t id) const {
    return log.map().find(NeedleId{id});
  }

  IndexLog log;
};

IndexRow put(std::uint64_t id, std::uint64_t offset, std::int32_t size) {
  return {NeedleId{id}, offset, size};
}
constexpr IndexRow kZeroRow{};

}  // namespace

TEST_CASE("the last row of a needle wins, by its place in the file") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    fed.feed({put(1, 800, 100), put(2, 8, 20), put(1, 400, 50)});
    CHECK(fed.find(1) == NeedleLocation{400, 50});
    CHECK(fed.find(2) == NeedleLocation{8, 20});
    CHECK_FALSE(fed.find(3));
    CHECK(fed.log.map().size() == 2);
  }
}

TEST_CASE("a negative size deletes, whichever it is, and a later put revives") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::int32_t size : {-1, -2, INT32_MIN}) {
      Fed fed(width);
      fed.feed({put(1, 8, 100), put(1, 200, size)});
      CHECK_FALSE(fed.find(1));
      fed.feed({put(1, 400, 7)});
      CHECK(fed.find(1) == NeedleLocation{400, 7});
    }
  }
}

TEST_CASE("a row with offset 0 deletes even when its size is not negative") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    fed.feed({put(1, 8, 100), put(2, 160, 5), put(1, 0, 100), put(2, 0, -1)});
    CHECK_FALSE(fed.find(1));
    CHECK_FALSE(fed.find(2));
  }
}

TEST_CASE("deleting what was never there changes nothing") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    CHECK(fed.feed({put(1, 8, 100), put(9, 160, -1)}).rows == 2);
    CHECK_FALSE(fed.find(9));
    CHECK(fed.log.map().size() == 1);
  }
}

TEST_CASE("size 0 with an offset is a live and empty needle") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    fed.feed({put(1, 8, 0)});
    CHECK(fed.find(1) == NeedleLocation{8, 0});
  }
}

TEST_CASE("5-byte offsets reach beyond 32 GiB, and ids and sizes fill their fields") {
  Fed fed(OffsetWidth::kFive);
  const std::uint64_t last = ((std::uint64_t{1} << 40) - 1) * 8;
  fed.feed({put(UINT64_MAX, last, INT32_MAX), put(0, (std::uint64_t{1} << 35) + 8, 1)});
  CHECK(fed.find(UINT64_MAX) == NeedleLocation{last, INT32_MAX});
  CHECK(fed.find(0) == NeedleLocation{(std::uint64_t{1} << 35) + 8, 1});
}

TEST_CASE("a partial row is not consumed, and is taken once whole") {
  for (const OffsetWidth width : kBothWidths) {
    const auto first = row_of(put(1, 8, 100), width);
    const auto second = row_of(put(2, 160, 100), width);
    for (std::size_t cut = 0; cut < second.size(); ++cut) {
      Fed fed(width);
      auto bytes = first;
      bytes.insert(bytes.end(), second.begin(), second.begin() + static_cast<std::ptrdiff_t>(cut));
      for (const bool more_follows : {false, true}) {
        CHECK(fed.log
                  .apply(more_follows ? std::span(bytes).subspan(first.size()) : std::span(bytes),
                         more_follows)
                  .rows == (more_follows ? 0 : 1));
        CHECK(fed.log.consumed_bytes() == first.size());
        CHECK_FALSE(fed.find(2));
      }
      fed.log.apply(second, false);
      CHECK(fed.find(2));
      CHECK(fed.log.consumed_bytes() == 2 * first.size());
    }
  }
}

TEST_CASE("rows of zeroes at the end are not visible until they are filled in") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    CHECK(fed.feed({put(1, 8, 100), kZeroRow, kZeroRow}).rows == 1);
    CHECK(fed.log.consumed_bytes() == fed.log.row_size());
    CHECK(fed.feed({put(2, 160, 5), put(3, 240, 6)}).rows == 2);
    CHECK(fed.find(2));
    CHECK(fed.find(3));
  }
}

TEST_CASE("rows of zeroes with others behind them are passed over") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    CHECK(fed.feed({put(1, 8, 100), kZeroRow, put(2, 160, 5)}).rows == 3);
    CHECK(fed.find(1));
    CHECK(fed.find(2));
    CHECK(fed.feed({kZeroRow}, /*more_follows=*/true).rows == 1);
    CHECK(fed.log.consumed_bytes() == 4 * fed.log.row_size());
  }
}

TEST_CASE("an index of zeroes alone consumes nothing") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    CHECK(fed.feed({kZeroRow, kZeroRow}).rows == 0);
    CHECK(fed.log.consumed_bytes() == 0);
    CHECK(fed.log.last_row().empty());
  }
}

TEST_CASE("the last row is remembered as it lay in the file") {
  for (const OffsetWidth width : kBothWidths) {
    Fed fed(width);
    fed.feed({put(1, 8, 100), put(2, 160, 5)});
    const auto row = row_of(put(2, 160, 5), width);
    CHECK(std::ranges::equal(fed.log.last_row(), row));
    fed.log.apply({}, false);
    CHECK(std::ranges::equal(fed.log.last_row(), row));
  }
}

TEST_CASE("a row below the highest record end tells that offsets were reused") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::uint8_t version : {1, 2, 3}) {
      Fed fed(width, version);
      const std::uint64_t end = 8 + kelp::record_bytes(100, version);
      CHECK_FALSE(fed.feed({put(1, 8, 100)}).rewound);
      CHECK_FALSE(fed.feed({put(2, end, 100)}).rewound);
      CHECK(fed.feed({put(3, end, 100)}).rewound);
      // The tombstone of a reused offset tells as well.
      CHECK(fed.feed({put(1, end, -1)}).rewound);
      // Rows without an offset say nothing.
      CHECK_FALSE(fed.feed({put(2, 0, -1)}).rewound);
      CHECK_FALSE(fed.feed({put(4, end + kelp::record_bytes(100, version), 1)}).rewound);
    }
  }
}

TEST_CASE("a row that begins inside the last record is a reuse, one at its end is not") {
  Fed fed(OffsetWidth::kFour);
  const std::uint64_t end = 8 + kelp::record_bytes(1000, 3);
  fed.feed({put(1, 8, 1000)});
  CHECK_FALSE(fed.feed({put(2, end, -1)}).rewound);
  CHECK(fed.feed({put(3, end - 8, 1)}).rewound);
}

TEST_CASE("without a width nothing is replayed") {
  IndexLog log(3);
  const auto row = row_of(put(1, 8, 100), OffsetWidth::kFour);
  CHECK(log.apply(row, false).rows == 0);
  CHECK(log.consumed_bytes() == 0);
  CHECK(log.row_size() == 0);
}

namespace {

/// Puts, overwrites and deletes of few ids, so that most rows follow another of their needle.
std::vector<IndexRow> busy_rows(std::size_t count) {
  std::mt19937_64 random(7);
  std::vector<IndexRow> rows;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t id = random() % 50'000;  // 0 is one of them
    rows.push_back(random() % 4 == 0 ? put(id, 8 * (i + 1), -1)
                                     : put(id, 8 * (i + 1), static_cast<std::int32_t>(i % 1000)));
  }
  return rows;
}

RowPartitions::Flushed settle(IndexLog& log) {
  RowPartitions::Flushed flushed = log.settle();
  while (flushed == RowPartitions::Flushed::kSome) flushed = log.settle();
  return flushed;
}

/// Enough for a region to be applied before settle(), and some more.
constexpr std::size_t kManyRows = 400'000;

}  // namespace

TEST_CASE("an index that many rows are expected of becomes what it becomes row by row") {
  const std::vector<IndexRow> rows = busy_rows(kManyRows);
  for (const OffsetWidth width : kBothWidths) {
    Fed plain(width);
    Fed expected(width);
    expected.log.expect(RowPartitions::kWorthwhileRows);
    for (std::size_t at = 0; at < rows.size(); at += 70'000) {
      const std::vector<IndexRow> some(
          rows.begin() + static_cast<std::ptrdiff_t>(at),
          rows.begin() + static_cast<std::ptrdiff_t>(std::min(at + 70'000, rows.size())));
      const IndexLog::Applied one = plain.feed(some, true);
      const IndexLog::Applied other = expected.feed(some, true);
      CHECK(one.rows == other.rows);
      CHECK(one.rewound == other.rewound);
    }
    CHECK(plain.log.consumed_bytes() == expected.log.consumed_bytes());
    CHECK(std::ranges::equal(plain.log.last_row(), expected.log.last_row()));
    CHECK(expected.log.map().size() != plain.log.map().size());  // some are still put aside
    REQUIRE(settle(expected.log) == RowPartitions::Flushed::kAll);
    CHECK(expected.log.map().size() == plain.log.map().size());
    std::size_t different = 0;
    for (std::uint64_t id = 0; id < 50'000; ++id) {
      different += expected.find(id) == plain.find(id) ? 0 : 1;
    }
    CHECK(different == 0);

    // From here on row by row.
    expected.feed({put(3, 80, 9), put(4, 8, -1)});
    CHECK(expected.find(3) == NeedleLocation{80, 9});
    CHECK_FALSE(expected.find(4));
  }
}

TEST_CASE("an index without memory for the rows put aside says so") {
  std::vector<IndexRow> rows;
  for (std::uint64_t id = 1; id <= kManyRows; ++id) rows.push_back(put(id, 8 * id, 1));
  SUBCASE("while they come") {
    Fed fed(OffsetWidth::kFour, IndexLog(3, NeedleMap(1 << 16)));
    fed.log.expect(RowPartitions::kWorthwhileRows);
    CHECK(fed.feed(rows, true).out_of_memory);
  }
  SUBCASE("at the end") {
    rows.resize(10'000);
    Fed fed(OffsetWidth::kFour, IndexLog(3, NeedleMap(1 << 16)));
    fed.log.expect(RowPartitions::kWorthwhileRows);
    CHECK_FALSE(fed.feed(rows, true).out_of_memory);
    CHECK(settle(fed.log) == RowPartitions::Flushed::kOutOfMemory);
  }
}
