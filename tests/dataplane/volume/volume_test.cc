// Freshness: what refresh() answers for everything that can happen to a live index.
#include "dataplane/volume/volume.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "support/volume_opening.h"
#include "support/volume_writer.h"

using kelp::IndexRow;
using kelp::NeedleId;
using kelp::OffsetWidth;
using kelp::Volume;
using kelp::test::let_time_pass;
using kelp::test::must_open;
using kelp::test::refresh_fully;
using kelp::test::row_of;
using kelp::test::TempDir;
using kelp::test::VolumeWriter;
using Freshness = kelp::Volume::Freshness;

namespace {

constexpr OffsetWidth kBothWidths[] = {OffsetWidth::kFour, OffsetWidth::kFive};

/// A served volume of two needles, up to date.
struct Served {
  explicit Served(OffsetWidth width, std::uint8_t version = 3)
      : writer(dir.path(), {.width = width, .version = version}) {
    writer.put(1, "one");
    writer.put(2, "two");
    volume = must_open(writer.paths());
    REQUIRE(volume->refresh() == Freshness::kCurrent);
  }
  bool has(std::uint64_t id) const { return volume->find(NeedleId{id}).has_value(); }

  TempDir dir;
  VolumeWriter writer;
  std::unique_ptr<Volume> volume;
};

std::uint64_t rows_read(Volume& volume) {
  return volume.counters().tail_rows.load();
}

}  // namespace

TEST_CASE("nothing happened: current, and no row is read") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    let_time_pass();
    const std::uint64_t before = rows_read(*served.volume);
    const std::uint64_t generation = served.volume->generation();
    for (int i = 0; i < 100; ++i) CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(rows_read(*served.volume) == before);
    CHECK(served.volume->generation() == generation);
  }
}

TEST_CASE("an append shows with the next refresh") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    for (std::uint64_t id = 10; id < 200; ++id) {
      const auto at = served.writer.put(id, "more");
      CHECK_FALSE(served.has(id));
      REQUIRE(served.volume->refresh() == Freshness::kCurrent);
      CHECK(served.volume->find(NeedleId{id}) == at);
    }
    CHECK(served.volume->counters().needles.load() == 192);
    CHECK(served.volume->counters().idx_bytes.load() == served.writer.idx_end());
  }
}

TEST_CASE("a delete and an overwrite show with the next refresh and keep the generation") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    const std::uint64_t generation = served.volume->generation();
    served.writer.remove(1);
    const auto at = served.writer.put(2, "two, but longer");
    REQUIRE(served.volume->refresh() == Freshness::kCurrent);
    CHECK_FALSE(served.has(1));
    CHECK(served.volume->find(NeedleId{2}) == at);
    CHECK(served.volume->generation() == generation);
  }
}

TEST_CASE("more rows than one call replays: behind, then current") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    std::vector<std::byte> rows;
    constexpr std::uint64_t kRows = 3 * 4096 + 1;
    for (std::uint64_t i = 0; i < kRows; ++i) {
      const auto row = row_of({NeedleId{100 + i}, 8 + 32 * i, 0}, width);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    served.writer.append_to_index(rows);
    for (int call = 0; call < 3; ++call) CHECK(served.volume->refresh() == Freshness::kBehind);
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.has(100 + kRows - 1));
    CHECK(rows_read(*served.volume) == kRows);
  }
}

TEST_CASE("exactly as many rows as one call replays are current at once") {
  Served served(OffsetWidth::kFive);
  std::vector<std::byte> rows;
  for (std::uint64_t i = 0; i < 4096; ++i) {
    const auto row = row_of({NeedleId{100 + i}, 8 + 32 * i, 0}, OffsetWidth::kFive);
    rows.insert(rows.end(), row.begin(), row.end());
  }
  served.writer.append_to_index(rows);
  CHECK(served.volume->refresh() == Freshness::kCurrent);
  CHECK(served.has(100 + 4095));
}

TEST_CASE("an index cut while it was behind is another one") {
  Served served(OffsetWidth::kFour);
  const std::uint64_t kept = served.writer.idx_end();
  for (std::uint64_t i = 0; i < 5000; ++i) {
    served.writer.append_row({NeedleId{100 + i}, 8 + 32 * i, 0});
  }
  REQUIRE(served.volume->refresh() == Freshness::kBehind);
  served.writer.truncate_idx(kept + 16);
  CHECK(refresh_fully(*served.volume) == Freshness::kReplaced);
}

TEST_CASE("half a row shows nothing, its rest shows it") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    const auto row = row_of({NeedleId{9}, served.writer.dat_end(), 0}, width);
    for (const std::size_t cut : {std::size_t{1}, row.size() / 2, row.size() - 1}) {
      CAPTURE(cut);
      served.writer.append_to_index(std::span(row).first(cut));
      CHECK(served.volume->refresh() == Freshness::kCurrent);
      CHECK(served.volume->refresh() == Freshness::kCurrent);
      served.writer.append_to_index(std::span(row).subspan(cut));
      CHECK(served.volume->refresh() == Freshness::kCurrent);
      CHECK(served.has(9));
    }
  }
}

TEST_CASE("a row first seen as zeroes is taken when it is filled in, without any new time") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    const std::uint64_t at = served.writer.idx_end();
    const auto row = row_of({NeedleId{9}, 4096, 0}, width);
    served.writer.append_to_index(std::vector<std::byte>(row.size()));
    // Written through a mapping: neither size nor times change, as with a page that becomes
    // visible after the size did.
    const int fd = ::open(served.writer.paths().idx.c_str(), O_RDWR);
    auto* const page =
        static_cast<std::byte*>(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    REQUIRE(page != MAP_FAILED);
    page[at] = std::byte{0};  // the first touch of a mapping stamps the file
    CHECK(refresh_fully(*served.volume) == Freshness::kCurrent);
    CHECK_FALSE(served.has(9));
    std::ranges::copy(row, page + at);
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.has(9));
    ::munmap(page, 4096);
    ::close(fd);
  }
}

TEST_CASE("zeroes at the end keep being looked at, and cost nothing but the look") {
  Served served(OffsetWidth::kFour);
  served.writer.append_to_index(std::vector<std::byte>(160));
  const std::uint64_t before = rows_read(*served.volume);
  for (int i = 0; i < 3; ++i) CHECK(served.volume->refresh() == Freshness::kCurrent);
  CHECK(rows_read(*served.volume) == before);
  served.writer.put(9, "behind the zeroes");
  CHECK(served.volume->refresh() == Freshness::kCurrent);
  CHECK(served.has(9));
}

TEST_CASE("an unlinked volume is replaced") {
  Served served(OffsetWidth::kFour);
  served.writer.unlink_all();
  CHECK(served.volume->refresh() == Freshness::kReplaced);
}

TEST_CASE("an index renamed over is replaced") {
  Served served(OffsetWidth::kFive);
  const std::string& idx = served.writer.paths().idx;
  std::filesystem::copy_file(idx, idx + ".tmp");
  std::filesystem::rename(idx + ".tmp", idx);
  CHECK(served.volume->refresh() == Freshness::kReplaced);
}

TEST_CASE("an index moved away is replaced") {
  Served served(OffsetWidth::kFive);
  std::filesystem::rename(served.writer.paths().idx, served.writer.paths().idx + ".away");
  CHECK(served.volume->refresh() == Freshness::kReplaced);
}

TEST_CASE("a vacuum replaces the volume, and the new one has the right offsets") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::uint8_t version : {1, 2, 3}) {
      Served served(width, version);
      served.writer.put(1, "one again");
      served.writer.remove(2);
      REQUIRE(served.volume->refresh() == Freshness::kCurrent);
      const auto old_generation = served.volume->generation();
      served.writer.compact();
      served.writer.mark_compaction();
      served.writer.swap_dat();
      CHECK(served.volume->refresh() == Freshness::kCurrent);  // nothing was acknowledged yet
      served.writer.swap_idx();
      CHECK(served.volume->refresh() == Freshness::kReplaced);
      served.writer.unmark_compaction();
      const auto renewed = must_open(served.writer.paths());
      CHECK(renewed->refresh() == Freshness::kCurrent);
      CHECK(renewed->revision() == 1);
      CHECK(renewed->generation() > old_generation);
      CHECK(renewed->find(NeedleId{1})->offset_bytes == 8);
      CHECK_FALSE(renewed->find(NeedleId{2}));
    }
  }
}

TEST_CASE("a vacuum is noticed when a hard-linked backup keeps the old index alive") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    served.writer.snapshot();
    served.volume = must_open(served.writer.paths());
    REQUIRE(served.volume->refresh() == Freshness::kCurrent);
    let_time_pass();
    REQUIRE(served.volume->refresh() == Freshness::kCurrent);
    served.writer.vacuum();
    CHECK(served.volume->refresh() == Freshness::kReplaced);
  }
}

TEST_CASE("a vacuum right after an append is noticed within the same tick of the clock") {
  // Where times are coarse the swap leaves the time the append left: on tmpfs all of it is quick.
  const std::filesystem::path memory = "/dev/shm";
  if (!std::filesystem::is_directory(memory)) return;
  for (int round = 0; round < 50; ++round) {
    TempDir dir(memory);
    VolumeWriter writer(dir.path(), {});
    writer.put(1, "one");
    writer.snapshot();
    const auto volume = must_open(writer.paths());
    writer.put(2, "two");
    REQUIRE(refresh_fully(*volume) == Freshness::kCurrent);
    writer.vacuum();
    REQUIRE(volume->refresh() == Freshness::kReplaced);
  }
}

TEST_CASE("a backup by hard links never serves a stale index") {
  Served served(OffsetWidth::kFour);
  let_time_pass();
  served.writer.snapshot();
  // The times changed and the size did not: opening anew is safe, and so is noticing it is ours.
  const Freshness freshness = refresh_fully(*served.volume);
  if (freshness == Freshness::kCurrent) {
    served.writer.put(9, "nine");
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.has(9));
  } else {
    CHECK(freshness == Freshness::kReplaced);
  }
}

TEST_CASE("an index rewritten in place at the same size is replaced") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    let_time_pass();
    auto rows = row_of({NeedleId{2}, 8, 3}, width);
    const auto second = row_of({NeedleId{1}, 64, 3}, width);
    rows.insert(rows.end(), second.begin(), second.end());
    served.writer.rewrite_idx(rows);
    CHECK(refresh_fully(*served.volume) == Freshness::kReplaced);
  }
}

TEST_CASE("an index rewritten in place and made to look old is replaced") {
  Served served(OffsetWidth::kFour);
  let_time_pass();
  struct stat before {};
  REQUIRE(::stat(served.writer.paths().idx.c_str(), &before) == 0);
  auto rows = served.writer.idx_bytes();
  std::ranges::rotate(rows, rows.begin() + 16);
  served.writer.rewrite_idx(rows);
  const timespec times[2] = {before.st_atim, before.st_mtim};
  REQUIRE(::utimensat(AT_FDCWD, served.writer.paths().idx.c_str(), times, 0) == 0);
  CHECK(refresh_fully(*served.volume) == Freshness::kReplaced);
}

TEST_CASE("an index rewritten in place and longer is replaced when its rows moved") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    std::vector<std::byte> rows;
    for (const std::uint64_t id : {2, 1, 3}) {
      const auto row = row_of({NeedleId{id}, 8 * id, 3}, width);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    served.writer.rewrite_idx(rows);
    CHECK(served.volume->refresh() == Freshness::kReplaced);
  }
}

TEST_CASE("an index that shrank is replaced") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::uint64_t cut : {std::uint64_t{1}, std::uint64_t{17}}) {
      Served served(width);
      served.writer.truncate_idx(served.writer.idx_end() - cut);
      CHECK(served.volume->refresh() == Freshness::kReplaced);
    }
    Served emptied(width);
    emptied.writer.truncate_idx(0);
    CHECK(emptied.volume->refresh() == Freshness::kReplaced);
  }
}

TEST_CASE("a touched index and one whose mode changed are never taken for current unread") {
  for (const bool touch : {true, false}) {
    Served served(OffsetWidth::kFour);
    let_time_pass();
    const char* const idx = served.writer.paths().idx.c_str();
    REQUIRE((touch ? ::utimensat(AT_FDCWD, idx, nullptr, 0) : ::chmod(idx, 0600)) == 0);
    CHECK(refresh_fully(*served.volume) == Freshness::kReplaced);
  }
}

TEST_CASE("a write that stamped the index and then stalled is waited for") {
  using Clock = std::chrono::steady_clock;
  // For 200 ms: where this machine stood still for about as long, it is tried again.
  for (int attempt = 0; attempt < 20; ++attempt) {
    Served served(OffsetWidth::kFour);
    let_time_pass();
    const Clock::time_point began = Clock::now();
    REQUIRE(::utimensat(AT_FDCWD, served.writer.paths().idx.c_str(), nullptr, 0) == 0);
    const Freshness first = served.volume->refresh();
    const Freshness second = served.volume->refresh();
    if (Clock::now() - began > std::chrono::milliseconds(150)) continue;
    CHECK(first == Freshness::kBehind);
    CHECK(second == Freshness::kBehind);
    served.writer.put(9, "at last");
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.has(9));
    return;
  }
  FAIL("two looks never took less than 150 ms");
}

TEST_CASE("the first rows of a new volume show at once where the .vif tells their width") {
  for (const OffsetWidth width : kBothWidths) {
    for (const bool first_is_empty : {false, true}) {
      TempDir dir;
      VolumeWriter writer(dir.path(), {.width = width});
      const auto volume = must_open(writer.paths());
      CHECK(volume->refresh() == Freshness::kCurrent);
      writer.put(1, first_is_empty ? "" : "one");
      CHECK(volume->refresh() == Freshness::kCurrent);
      CHECK(volume->find(NeedleId{1}));
      CHECK(volume->width() == width);
      writer.put(2, "two");
      CHECK(volume->refresh() == Freshness::kCurrent);
      CHECK(volume->find(NeedleId{2}));
    }
  }
}

TEST_CASE("the first rows of a new volume without a .vif show once their width is certain") {
  for (const OffsetWidth width : kBothWidths) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {.width = width, .with_vif = false});
    const auto volume = must_open(writer.paths());
    CHECK(volume->refresh() == Freshness::kCurrent);
    writer.put(1, "");
    // One row of an empty needle reads the same either way. Whoever looks must be able to tell
    // this from an empty volume.
    CHECK(volume->refresh() == Freshness::kUndecided);
    CHECK(volume->counters().idx_bytes.load() == writer.idx_end());
    CHECK_FALSE(volume->find(NeedleId{1}));
    writer.put(2, "two");
    CHECK(volume->refresh() == Freshness::kCurrent);
    CHECK(volume->find(NeedleId{1}));
    CHECK(volume->find(NeedleId{2}));
    CHECK(volume->width() == width);
  }
}

TEST_CASE("a .vif that claims the wrong width is not believed") {
  for (const OffsetWidth width : kBothWidths) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {.width = width});
    writer.write_vif(width == OffsetWidth::kFour ? R"({"bytesOffset":5})" : R"({"bytesOffset":4})");
    const auto volume = must_open(writer.paths());
    for (std::uint64_t id = 1; id < 40; ++id) {
      writer.put(id, "text");
      REQUIRE(volume->refresh() == Freshness::kCurrent);
      CHECK(volume->find(NeedleId{id}));
      CHECK(volume->width() == width);
    }
  }
}

TEST_CASE("offsets reused after a rollback raise the generation") {
  for (const OffsetWidth width : kBothWidths) {
    Served served(width);
    const std::uint64_t end = served.writer.dat_end();
    served.writer.put(3, "lost in a failed fsync");
    REQUIRE(served.volume->refresh() == Freshness::kCurrent);
    const std::uint64_t generation = served.volume->generation();
    served.writer.roll_back_dat(end);
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.volume->generation() == generation);
    served.writer.put(4, "where the lost one was");
    CHECK(served.volume->refresh() == Freshness::kCurrent);
    CHECK(served.volume->generation() > generation);
  }
}

TEST_CASE("generations are unique over all volumes") {
  Served one(OffsetWidth::kFour);
  Served other(OffsetWidth::kFour);
  CHECK(one.volume->generation() != other.volume->generation());
}

TEST_CASE("an index that has no memory for its newest rows is replaced, never believed") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  Volume::Parts parts;
  parts.id = writer.id();
  parts.paths = writer.paths();
  parts.super_block.version = 3;
  parts.dat.reset(::open(writer.paths().dat.c_str(), O_RDONLY | O_CLOEXEC));
  parts.idx.reset(::open(writer.paths().idx.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(::fstat(parts.idx.get(), &parts.idx_stat) == 0);
  parts.log = kelp::IndexLog(3, kelp::NeedleMap(16 * 1024));
  parts.log.set_width(writer.options().width);
  parts.counters = std::make_shared<kelp::VolumeCounters>();
  Volume volume(std::move(parts));
  for (std::uint64_t id = 1; id <= 50; ++id) {
    writer.append_row({NeedleId{id}, id * kelp::kNeedleAlignment, 10});
  }
  CHECK(refresh_fully(volume) == Freshness::kCurrent);
  for (std::uint64_t id = 51; id <= 5000; ++id) {
    writer.append_row({NeedleId{id}, id * kelp::kNeedleAlignment, 10});
  }
  CHECK(refresh_fully(volume) == Freshness::kReplaced);
  CHECK(refresh_fully(volume) == Freshness::kReplaced);
}
