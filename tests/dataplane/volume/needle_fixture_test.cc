// Every record the fixtures' manifest places in a .dat, read with the leaves alone.
#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"
#include "dataplane/volume/endian.h"
#include "dataplane/volume/needle.h"
#include "dataplane/volume/super_block.h"
#include "support/fixture_manifest.h"

using kelp::test::ManifestRow;
using kelp::test::read_fixture;
using kelp::test::rows_with_records;

namespace {

std::string etag_of(std::uint32_t crc) {
  std::array<char, 9> text{};
  std::snprintf(text.data(), text.size(), "%08x", crc);
  return text.data();
}

std::span<const std::byte> record_of(const ManifestRow& row, std::span<const std::byte> dat) {
  return dat.subspan(row.get<std::uint64_t>("dat_offset"));
}

/// Everything of a record with a body that the manifest has an opinion on.
void check_body(const ManifestRow& row, std::span<const std::byte> body) {
  const std::size_t data_bytes = kelp::load_be32(body.data());
  REQUIRE(data_bytes + 5 <= body.size());
  CHECK(data_bytes == row.get<std::size_t>("stored_size"));

  kelp::NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(body.subspan(kelp::kDataLengthBytes + data_bytes), meta));
  CHECK(meta.flags == row.get<unsigned>("flags"));
  CHECK(meta.name == row.get<std::string>("name"));
  CHECK(meta.mime == row.get<std::string>("mime"));
  CHECK(meta.last_modified_s == row.get<std::uint64_t>("last_modified"));
  if (row.has("ttl_minutes")) CHECK(meta.ttl.minutes() == row.get<std::uint32_t>("ttl_minutes"));
  const auto pairs = meta.pairs.empty() ? nlohmann::json() : nlohmann::json::parse(meta.pairs);
  CHECK(pairs == row.fields.value("pairs", nlohmann::json()));
}

}  // namespace

TEST_CASE("every fixture record decodes to what its manifest row says") {
  int checked = 0;
  for (const ManifestRow& row : rows_with_records()) {
    if (row.kind == "torn-dat-body-hit") continue;  // cut on purpose, see below
    CAPTURE(row.family);
    CAPTURE(row.kind);
    CAPTURE(row.fid);
    const auto dat = read_fixture(row.file(".dat"));
    const auto super_block =
        kelp::parse_super_block(std::span(dat).first<kelp::kSuperBlockBytes>());
    REQUIRE(super_block);
    const std::uint8_t version = super_block->version;

    const auto record = record_of(row, dat);
    const auto header = kelp::parse_needle_header(record.first<kelp::kNeedleHeaderBytes>());
    const auto id = kelp::parse_file_id(row.fid);
    REQUIRE(id);
    CHECK(header.id == id->needle);
    CHECK(header.cookie == id->cookie);
    CHECK(header.body_bytes == row.get<std::int32_t>("size_field"));
    CHECK(kelp::record_bytes(header.body_bytes, version) <= record.size());

    const auto body_bytes = static_cast<std::size_t>(header.body_bytes);
    const auto body = record.subspan(kelp::kNeedleHeaderBytes, body_bytes);
    const auto tail =
        kelp::parse_needle_tail(record.subspan(kelp::kNeedleHeaderBytes + body_bytes), version);
    CHECK(tail.append_at_ns == row.get<std::uint64_t>("append_at_ns"));
    if (body_bytes != 0) {
      check_body(row, body);
      const std::size_t data_bytes = kelp::load_be32(body.data());
      const std::uint32_t crc = kelp::crc32c(body.subspan(kelp::kDataLengthBytes, data_bytes));
      CHECK(kelp::checksum_matches(tail.checksum, crc));
      CHECK(etag_of(crc) == row.get<std::string>("etag"));
    }
    ++checked;
  }
  CHECK(checked > 100);
}

TEST_CASE("a fixture needle with a TTL expires at the nanosecond its manifest row names") {
  int with_ttl = 0;
  for (const ManifestRow& row : rows_with_records()) {
    if (!row.has("expires_at_ns")) continue;
    CAPTURE(row.kind);
    const auto dat = read_fixture(row.file(".dat"));
    const auto record = record_of(row, dat);
    const auto header = kelp::parse_needle_header(record.first<kelp::kNeedleHeaderBytes>());
    const auto body_bytes = static_cast<std::size_t>(header.body_bytes);
    const auto body = record.subspan(kelp::kNeedleHeaderBytes, body_bytes);
    kelp::NeedleMeta meta;
    REQUIRE(kelp::parse_needle_meta(body.subspan(4 + kelp::load_be32(body.data())), meta));
    const auto tail =
        kelp::parse_needle_tail(record.subspan(kelp::kNeedleHeaderBytes + body_bytes), 3);
    const auto expires_at_ns = row.get<std::uint64_t>("expires_at_ns");
    CHECK(kelp::is_expired(meta.flags, meta.ttl, tail.append_at_ns, expires_at_ns));
    CHECK_FALSE(kelp::is_expired(meta.flags, meta.ttl, tail.append_at_ns, expires_at_ns - 1));
    ++with_ttl;
  }
  CHECK(with_ttl > 0);
}

TEST_CASE("a record cut by the end of its file is seen to be cut") {
  int cut = 0;
  for (const ManifestRow& row : rows_with_records()) {
    if (row.kind != "torn-dat-body-hit") continue;
    const auto dat = read_fixture(row.file(".dat"));
    const auto record = record_of(row, dat);
    const auto header = kelp::parse_needle_header(record.first<kelp::kNeedleHeaderBytes>());
    CHECK(kelp::record_bytes(header.body_bytes, 3) > record.size());
    ++cut;
  }
  CHECK(cut == 2);
}
