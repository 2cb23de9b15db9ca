// Opening volumes that are whole, half there, odd, or being replaced right now.
#include "dataplane/volume/volume_open.h"

#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <thread>

#include "support/volume_opening.h"
#include "support/volume_writer.h"

using kelp::NeedleId;
using kelp::OffsetWidth;
using kelp::OpenRefusal;
using kelp::VolumeOpen;
using kelp::VolumePaths;
using kelp::test::must_open;
using kelp::test::Opened;
using kelp::test::row_of;
using kelp::test::TempDir;
using kelp::test::try_open;
using kelp::test::VolumeWriter;
using Freshness = kelp::Volume::Freshness;

namespace {

constexpr OffsetWidth kBothWidths[] = {OffsetWidth::kFour, OffsetWidth::kFive};

/// A sound volume, spoiled by `spoil`, and what opening it is refused with.
OpenRefusal refusal_after(const std::function<void(VolumeWriter&)>& spoil) {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  writer.put(1, "one");
  REQUIRE(try_open(writer.paths()).volume != nullptr);
  spoil(writer);
  const Opened opened = try_open(writer.paths());
  REQUIRE(opened.volume == nullptr);
  CHECK_FALSE(opened.failure.reason.empty());
  return opened.failure.refusal;
}

void write_bytes(const std::string& path, std::string_view hex) {
  VolumeWriter::write_file(path, kelp::test::hex_bytes(hex));
}

void replace_with_fifo(const std::string& path) {
  std::filesystem::remove(path);
  REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
}

void replace_with_directory(const std::string& path) {
  std::filesystem::remove(path);
  std::filesystem::create_directory(path);
}

}  // namespace

TEST_CASE("a sound volume opens with all of its needles, in every version and width") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::uint8_t version : {1, 2, 3}) {
      TempDir dir;
      VolumeWriter writer(dir.path(), {.width = width, .version = version});
      const auto first = writer.put(1, "one");
      writer.put(2, "two");
      writer.remove(2);
      const auto volume = must_open(writer.paths());
      CHECK(volume->version() == version);
      CHECK(volume->width() == width);
      CHECK(volume->find(NeedleId{1}) == first);
      CHECK_FALSE(volume->find(NeedleId{2}));
      CHECK(volume->wrap_bytes() == (width == OffsetWidth::kFour ? std::uint64_t{32} << 30 : 0));
      CHECK(volume->refresh() == Freshness::kCurrent);
    }
  }
}

TEST_CASE("a volume being copied or committed is not opened now") {
  CHECK(refusal_after([](VolumeWriter& writer) { writer.mark_compaction(); }) ==
        OpenRefusal::kNotNow);
  CHECK(refusal_after([](VolumeWriter& writer) { write_bytes(writer.paths().copy_marker, ""); }) ==
        OpenRefusal::kNotNow);
}

TEST_CASE("a new .dat beside the old .idx is not opened") {
  CHECK(refusal_after([](VolumeWriter& writer) {
          writer.compact();
          writer.mark_compaction();
          writer.swap_dat();
        }) == OpenRefusal::kNotNow);
}

TEST_CASE("missing, short and unreadable files are broken") {
  const auto remove = [](const std::string& path) { std::filesystem::remove(path); };
  CHECK(refusal_after([&](VolumeWriter& w) { remove(w.paths().dat); }) == OpenRefusal::kBroken);
  CHECK(refusal_after([&](VolumeWriter& w) { remove(w.paths().idx); }) == OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { w.roll_back_dat(0); }) == OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { w.roll_back_dat(7); }) == OpenRefusal::kBroken);
  if (::geteuid() == 0) return;  // root reads everything
  CHECK(refusal_after([](VolumeWriter& w) { ::chmod(w.paths().dat.c_str(), 0); }) ==
        OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { ::chmod(w.paths().vif.c_str(), 0); }) ==
        OpenRefusal::kBroken);
}

TEST_CASE("formats unknown here are left to the server") {
  for (const char* block : {"00 00 0000 0000 0000", "04 00 0000 0000 0000", "ff 00 0000 0000 0000",
                            "03 00 0000 0000 0001", "02 00 0000 0000 ffff"}) {
    CAPTURE(block);
    CHECK(refusal_after([&](VolumeWriter& w) { write_bytes(w.paths().dat, block); }) ==
          OpenRefusal::kUseHttp);
  }
}

TEST_CASE("version 1 has no extra part, whatever its length field says") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {.version = 1});
  write_bytes(writer.paths().dat, "01 00 0000 0000 0010");
  CHECK(try_open(writer.paths()).volume != nullptr);
}

TEST_CASE("a .vif decides: tiered to the server, cut again later, empty or none to us") {
  CHECK(refusal_after([](VolumeWriter& w) {
          w.write_vif(R"({"files": [{"backendType": "s3", "key": "k"}], "version": 3})");
        }) == OpenRefusal::kUseHttp);
  CHECK(refusal_after([](VolumeWriter& w) { w.write_vif(R"({"files": [], "ver)"); }) ==
        OpenRefusal::kNotNow);
  TempDir dir;
  VolumeWriter writer(dir.path(), {.with_vif = false});
  writer.put(1, "one");
  CHECK(try_open(writer.paths()).volume != nullptr);
  writer.write_vif("");
  CHECK(try_open(writer.paths()).volume != nullptr);
}

TEST_CASE("a .vif that is there and cannot be read is not taken for none") {
  CHECK(refusal_after([](VolumeWriter& w) { replace_with_directory(w.paths().vif); }) ==
        OpenRefusal::kBroken);
}

TEST_CASE("FIFOs and directories in place of files are refused, and nothing waits for them") {
  CHECK(refusal_after([](VolumeWriter& w) { replace_with_fifo(w.paths().dat); }) ==
        OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { replace_with_fifo(w.paths().idx); }) ==
        OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { replace_with_directory(w.paths().dat); }) ==
        OpenRefusal::kBroken);
  CHECK(refusal_after([](VolumeWriter& w) { replace_with_directory(w.paths().idx); }) ==
        OpenRefusal::kBroken);
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  replace_with_fifo(writer.paths().vif);  // reads as empty; what matters is that it ends
  try_open(writer.paths());
}

TEST_CASE("links to the files open, links to nothing or to other file systems do not") {
  TempDir dir;
  TempDir elsewhere;
  VolumeWriter writer(elsewhere.path(), {});
  writer.put(1, "one");
  VolumePaths paths = writer.paths();
  for (std::string* path : {&paths.dat, &paths.idx}) {
    const auto link = dir.path() / std::filesystem::path(*path).filename();
    std::filesystem::create_symlink(*path, link);
    *path = link;
  }
  const auto volume = must_open(paths);
  writer.put(2, "two");
  CHECK(volume->refresh() == Freshness::kCurrent);
  CHECK(volume->find(NeedleId{2}));

  std::filesystem::remove(paths.idx);
  std::filesystem::create_symlink(dir.path() / "nothing", paths.idx);
  CHECK(try_open(paths).failure.refusal == OpenRefusal::kBroken);
  std::filesystem::remove(paths.idx);
  std::filesystem::create_symlink("/proc/self/status", paths.idx);
  const Opened on_proc = try_open(paths);
  CHECK(on_proc.failure.refusal == OpenRefusal::kUseHttp);
  CHECK(on_proc.failure.reason.find("proc") != std::string::npos);
}

TEST_CASE("a long index is replayed in turns, and rows that come meanwhile by refresh") {
  for (const OffsetWidth width : kBothWidths) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {.width = width});
    writer.put(1, "one");
    writer.put(2, "two");
    constexpr std::uint64_t kRows = 150'000;
    std::vector<std::byte> rows;
    for (std::uint64_t i = 0; i < kRows; ++i) {
      const auto row = row_of({NeedleId{100 + i}, 4096 + 32 * i, 0}, width);
      rows.insert(rows.end(), row.begin(), row.end());
    }
    writer.append_to_index(rows);
    VolumeOpen open(writer.id(), writer.paths(), std::make_shared<kelp::VolumeCounters>());
    int turns = 1;
    while (open.step() == VolumeOpen::Turn::kMore) {
      if (++turns == 3) writer.put(3, "meanwhile");
    }
    CHECK(turns == 4);
    const auto volume = open.take();
    CHECK(volume->find(NeedleId{100 + kRows - 1}));
    CHECK_FALSE(volume->find(NeedleId{3}));
    CHECK(volume->refresh() == Freshness::kCurrent);
    CHECK(volume->find(NeedleId{3}));
  }
}

TEST_CASE("a torn last row and zeroes at the end do not keep a volume from opening") {
  for (const OffsetWidth width : kBothWidths) {
    for (const std::size_t count : {std::size_t{1}, std::size_t{15}, std::size_t{170}}) {
      TempDir dir;
      VolumeWriter writer(dir.path(), {.width = width});
      writer.put(1, "one");
      writer.put(2, "two");
      writer.append_to_index(std::vector<std::byte>(count));
      const auto volume = must_open(writer.paths());
      CHECK(volume->refresh() == Freshness::kCurrent);
      CHECK(volume->find(NeedleId{2}));
    }
  }
}

TEST_CASE("an index cut, replaced or rewritten during the replay is noticed by the first refresh") {
  const auto freshness_after = [](const std::function<void(VolumeWriter&)>& change) {
    TempDir dir;
    VolumeWriter writer(dir.path(), {});
    for (std::uint64_t id = 1; id < 10; ++id) writer.put(id, "text");
    kelp::test::let_time_pass();
    VolumeOpen open(writer.id(), writer.paths(), std::make_shared<kelp::VolumeCounters>());
    REQUIRE(open.step() == VolumeOpen::Turn::kMore);
    change(writer);
    VolumeOpen::Turn turn = VolumeOpen::Turn::kMore;
    while (turn == VolumeOpen::Turn::kMore) turn = open.step();
    REQUIRE(turn == VolumeOpen::Turn::kDone);
    return kelp::test::refresh_fully(*open.take());
  };
  CHECK(freshness_after([](VolumeWriter& w) { w.truncate_idx(16); }) == Freshness::kReplaced);
  CHECK(freshness_after([](VolumeWriter& w) { w.truncate_idx(0); }) == Freshness::kReplaced);
  CHECK(freshness_after([](VolumeWriter& w) { w.vacuum(); }) == Freshness::kReplaced);
  CHECK(freshness_after([](VolumeWriter& w) { w.unlink_all(); }) == Freshness::kReplaced);
  CHECK(freshness_after([](VolumeWriter& w) {
          auto rows = w.idx_bytes();
          std::ranges::rotate(rows, rows.begin() + 16);
          w.rewrite_idx(rows);
        }) == Freshness::kReplaced);
  CHECK(freshness_after([](VolumeWriter& w) { w.put(99, "more"); }) == Freshness::kCurrent);
}

TEST_CASE("opened beside vacuum after vacuum, no new .dat is served with an old .idx") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  // Needle 1 moves with every vacuum that follows an overwrite of what lies before it.
  for (std::uint64_t id = 1; id <= 50; ++id) writer.put(id, "text of some length");
  std::jthread server([&](const std::stop_token& stop) {
    for (std::uint64_t round = 0; !stop.stop_requested(); ++round) {
      writer.put(1 + round % 50, std::string(1 + round % 40, 'x'));
      writer.vacuum();
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  });
  int served = 0;
  int refused = 0;
  // Markers are there most of the time, and a refusal takes microseconds.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (served < 50 && std::chrono::steady_clock::now() < deadline) {
    Opened opened = try_open(writer.paths());
    if (opened.volume == nullptr) {
      ++refused;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
      CHECK(opened.failure.refusal == OpenRefusal::kNotNow);
      continue;
    }
    for (std::uint64_t id = 1; id <= 50; ++id) {
      const auto at = opened.volume->find(NeedleId{id});
      REQUIRE(at);
      std::array<std::byte, kelp::kNeedleHeaderBytes> header;
      REQUIRE(::pread(opened.volume->dat_fd(), header.data(), header.size(),
                      static_cast<off_t>(at->offset_bytes)) == kelp::kNeedleHeaderBytes);
      REQUIRE(kelp::parse_needle_header(header).id == NeedleId{id});
    }
    ++served;
  }
  MESSAGE("served " << served << ", refused for now " << refused);
  CHECK(served > 0);
}
