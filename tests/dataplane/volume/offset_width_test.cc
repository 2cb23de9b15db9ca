#include "dataplane/volume/offset_width.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <random>

#include "support/fixture_manifest.h"
#include "support/hex_bytes.h"

using kelp::OffsetWidth;
using kelp::test::hex_bytes;

namespace {

using Bytes = std::vector<std::byte>;

/// A .dat in memory, read the way offset_width reads a file.
kelp::HeaderReader reader_of(const Bytes& dat) {
  return [&dat](std::uint64_t offset, std::span<std::byte, kelp::kNeedleHeaderBytes> header) {
    if (offset > dat.size() || dat.size() - offset < header.size()) {
      kelp::fill_no_header(header);
    } else {
      std::copy_n(dat.begin() + static_cast<std::ptrdiff_t>(offset), header.size(), header.begin());
    }
    return true;
  };
}

bool no_header_readable(std::uint64_t, std::span<std::byte, kelp::kNeedleHeaderBytes>) {
  return false;
}

struct FixtureVolume {
  std::filesystem::path base;
  OffsetWidth width;

  Bytes read(const char* extension) const {
    return kelp::test::read_fixture(base.string() + extension);
  }
};

/// Every volume of the fixtures with its true width, known from the folder, not from the .vif.
std::vector<FixtureVolume> fixture_volumes() {
  std::vector<FixtureVolume> volumes;
  for (const std::string& family : kelp::test::fixture_families()) {
    for (const char* set : {"vs", "broken"}) {
      const auto folder = kelp::test::fixtures_dir() / family / set;
      for (const auto& entry : std::filesystem::directory_iterator(folder)) {
        if (entry.path().extension() != ".idx") continue;
        auto base = entry.path();
        volumes.push_back(
            {base.replace_extension(), family == "v4b" ? OffsetWidth::kFour : OffsetWidth::kFive});
      }
    }
  }
  return volumes;
}

}  // namespace

TEST_CASE("the fixtures' widths are told from their files, without the .vif") {
  const auto volumes = fixture_volumes();
  CHECK(volumes.size() == 22);
  for (const FixtureVolume& volume : volumes) {
    CAPTURE(volume.base.string());
    const Bytes idx = volume.read(".idx");
    const Bytes dat = volume.read(".dat");
    const OffsetWidth found = kelp::detect_offset_width(idx, reader_of(dat));
    CHECK(found == (idx.empty() ? OffsetWidth::kUnknown : volume.width));
  }
}

TEST_CASE("no prefix of a fixture index is mistaken, and two whole rows are enough") {
  for (const FixtureVolume& volume : fixture_volumes()) {
    CAPTURE(volume.base.string());
    const Bytes idx = volume.read(".idx");
    const Bytes dat = volume.read(".dat");
    for (std::size_t length = 0; length <= idx.size(); ++length) {
      CAPTURE(length);
      const auto found = kelp::detect_offset_width(std::span(idx).first(length), reader_of(dat));
      if (length >= 2 * kelp::row_bytes(volume.width)) {
        REQUIRE(found == volume.width);
      } else {
        REQUIRE((found == volume.width || found == OffsetWidth::kUnknown));
      }
    }
  }
}

TEST_CASE("a half-visible first 17-byte row of an empty needle is not taken for a 16-byte row") {
  const Bytes dat = hex_bytes(
      "03 00 00 00 00 00 00 00"                                                // super block
      "637037d6 0000000000000001 00000000 00000000 17979cfe362a0000 00000000"  // empty needle
      "637037d6 0000000000000002 00000016 00000000 17979cfe362a0000 00000000");
  const Bytes idx = hex_bytes(
      "0000000000000001 00000001 00 00000000"
      "0000000000000002 00000005 00 00000016");
  const auto reader = reader_of(dat);
  CHECK(kelp::detect_offset_width(std::span(idx).first(16), reader) == OffsetWidth::kUnknown);
  CHECK(kelp::detect_offset_width(std::span(idx).first(17), reader) == OffsetWidth::kUnknown);
  CHECK(kelp::detect_offset_width(std::span(idx).first(33), reader) == OffsetWidth::kUnknown);
  CHECK(kelp::detect_offset_width(idx, reader) == OffsetWidth::kFive);
}

TEST_CASE("a tombstone row of size -1 matches a record of size 0") {
  const Bytes dat = hex_bytes(
      "03 00 00 00 00 00 00 00"
      "637037d6 0000000000000001 00000000 00000000 17979cfe362a0000 00000000"
      "637037d6 0000000000000001 00000000 00000000 17979cfe362a0001 00000000");
  const Bytes idx = hex_bytes(
      "0000000000000001 00000001 00000000"
      "0000000000000001 00000005 ffffffff");
  CHECK(kelp::detect_offset_width(idx, reader_of(dat)) == OffsetWidth::kFour);
}

TEST_CASE("rows of offset 0 and size -1 at the front say nothing") {
  Bytes idx;
  for (int i = 0; i < 5; ++i) {
    const Bytes row = hex_bytes("0000000000000001 00000000 00 ffffffff");
    idx.insert(idx.end(), row.begin(), row.end());
  }
  const Bytes dat = hex_bytes("03 00 00 00 00 00 00 00");
  CHECK(kelp::detect_offset_width(idx, reader_of(dat)) == OffsetWidth::kUnknown);
}

TEST_CASE("without rows, records or readable headers the width is unknown") {
  const auto volumes = fixture_volumes();
  const Bytes idx = volumes.front().read(".idx");
  const Bytes nothing;
  CHECK(kelp::detect_offset_width({}, reader_of(nothing)) == OffsetWidth::kUnknown);
  for (const FixtureVolume& volume : volumes) {
    const Bytes rows = volume.read(".idx");
    CHECK(kelp::detect_offset_width(rows, reader_of(nothing)) == OffsetWidth::kUnknown);
    CHECK(kelp::detect_offset_width(rows, no_header_readable) == OffsetWidth::kUnknown);
  }
}

TEST_CASE("an all-zero row does not match the void past the end of the file") {
  const Bytes idx(64);
  const Bytes nothing;
  CHECK(kelp::detect_offset_width(idx, reader_of(nothing)) == OffsetWidth::kUnknown);
}

TEST_CASE("garbage has no width") {
  const Bytes dat = fixture_volumes().front().read(".dat");
  std::mt19937_64 random(6);
  for (int i = 0; i < 2'000; ++i) {
    Bytes idx(random() % 1200);
    for (std::byte& byte : idx) byte = static_cast<std::byte>(random());
    REQUIRE(kelp::detect_offset_width(idx, reader_of(dat)) == OffsetWidth::kUnknown);
  }
}

TEST_CASE("headers are read from an open .dat, and rows past its end do not match") {
  for (const FixtureVolume& volume : fixture_volumes()) {
    CAPTURE(volume.base.string());
    const Bytes idx = volume.read(".idx");
    const int fd = ::open((volume.base.string() + ".dat").c_str(), O_RDONLY | O_CLOEXEC);
    REQUIRE(fd >= 0);
    const OffsetWidth found = kelp::detect_offset_width(idx, fd);
    CHECK(found == (idx.empty() ? OffsetWidth::kUnknown : volume.width));
    ::close(fd);
  }
}

TEST_CASE("a descriptor that cannot be read leaves the width unknown") {
  const Bytes idx = fixture_volumes().front().read(".idx");
  CHECK(kelp::detect_offset_width(idx, -1) == OffsetWidth::kUnknown);
}
