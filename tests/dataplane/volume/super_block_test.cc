#include "dataplane/volume/super_block.h"

#include <doctest/doctest.h>

#include "support/fixture_manifest.h"
#include "support/hex_bytes.h"

namespace {

std::optional<kelp::SuperBlock> parse(std::span<const std::byte> bytes) {
  return kelp::parse_super_block(bytes.first<kelp::kSuperBlockBytes>());
}

}  // namespace

TEST_CASE("the golden super block decodes field by field") {
  const auto block = parse(kelp::test::hex_bytes("03 0a 05 03 00 2a 00 00"));
  REQUIRE(block);
  CHECK(block->version == 3);
  CHECK(block->replica_placement == 10);
  CHECK(block->ttl == kelp::Ttl{.count = 5, .unit = 3});
  CHECK(block->ttl.minutes() == 5 * 24 * 60);
  CHECK(block->compaction_revision == 42);
  CHECK(block->extra_bytes == 0);
  CHECK(block->first_needle_offset() == 8);
}

TEST_CASE("only versions 1, 2 and 3 are super blocks") {
  for (int version = 0; version < 256; ++version) {
    std::vector<std::byte> bytes(8);
    bytes[0] = static_cast<std::byte>(version);
    CHECK(parse(bytes).has_value() == (version >= 1 && version <= 3));
  }
}

TEST_CASE("the extra part counts in versions 2 and 3 only") {
  CHECK(parse(kelp::test::hex_bytes("01 00 00 00 00 00 00 10"))->first_needle_offset() == 8);
  CHECK(parse(kelp::test::hex_bytes("02 00 00 00 00 00 00 10"))->first_needle_offset() == 24);
  const auto largest = parse(kelp::test::hex_bytes("03 00 00 00 ff ff ff ff"));
  CHECK(largest->first_needle_offset() == 8 + 65535);
  CHECK(largest->extra_bytes == 65535);
  CHECK(largest->compaction_revision == 65535);
}

TEST_CASE("a TTL counts minutes by its unit, and without count or known unit is for ever") {
  CHECK(kelp::Ttl{3, 1}.minutes() == 3);
  CHECK(kelp::Ttl{4, 2}.minutes() == 4 * 60);
  CHECK(kelp::Ttl{5, 3}.minutes() == 5 * 1440);
  CHECK(kelp::Ttl{6, 4}.minutes() == 6 * 7 * 1440);
  CHECK(kelp::Ttl{7, 5}.minutes() == 7 * 30 * 1440);
  CHECK(kelp::Ttl{8, 6}.minutes() == 8 * 365 * 1440);
  CHECK(kelp::Ttl{255, 6}.minutes() == 255u * 365 * 1440);
  CHECK(kelp::Ttl{0, 3}.minutes() == 0);
  CHECK(kelp::Ttl{3, 0}.minutes() == 0);
  CHECK(kelp::Ttl{3, 7}.minutes() == 0);
  CHECK(kelp::Ttl{255, 255}.minutes() == 0);
}

TEST_CASE("the super blocks of the fixtures decode") {
  for (const std::string& family : kelp::test::fixture_families()) {
    const auto folder = kelp::test::fixtures_dir() / family / "vs";
    CHECK(parse(kelp::test::read_fixture(folder / "1.dat"))->version == 3);
    CHECK(parse(kelp::test::read_fixture(folder / "1.dat"))->compaction_revision == 0);
    CHECK(parse(kelp::test::read_fixture(folder / "vac_7.dat"))->compaction_revision == 1);
    CHECK(parse(kelp::test::read_fixture(folder / "fresh_9.dat"))->first_needle_offset() == 8);
    CHECK(parse(kelp::test::read_fixture(folder / "10.dat"))->ttl == kelp::Ttl{9, 6});
  }
}
