// The compressed needles of the fixtures, as stock servers stored them.
#include <doctest/doctest.h>
#include <openssl/evp.h>

#include <array>
#include <cstdio>
#include <set>

#include "dataplane/volume/endian.h"
#include "dataplane/volume/gzip.h"
#include "dataplane/volume/needle.h"
#include "support/fixture_manifest.h"

using kelp::GzipInflater;
using kelp::test::ManifestRow;
using State = kelp::GzipInflater::State;

namespace {

using Bytes = std::vector<std::byte>;

std::string sha256_of(std::span<const std::byte> bytes) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned digest_bytes = 0;
  REQUIRE(EVP_Digest(bytes.data(), bytes.size(), digest.data(), &digest_bytes, EVP_sha256(),
                     nullptr) == 1);
  std::string text;
  for (unsigned i = 0; i < digest_bytes; ++i) {
    std::array<char, 3> hex{};
    std::snprintf(hex.data(), hex.size(), "%02x", digest[i]);
    text += hex.data();
  }
  return text;
}

struct Stored {
  std::uint8_t flags = 0;
  Bytes data;
};

Stored read_stored(const ManifestRow& row) {
  const Bytes dat = kelp::test::read_fixture(row.file(".dat"));
  const auto record = std::span(dat).subspan(row.get<std::uint64_t>("dat_offset"));
  const auto header = kelp::parse_needle_header(record.first<kelp::kNeedleHeaderBytes>());
  if (header.body_bytes == 0) return {};
  const auto body = record.subspan(16, static_cast<std::size_t>(header.body_bytes));
  const std::size_t data_bytes = kelp::load_be32(body.data());
  kelp::NeedleMeta meta;
  REQUIRE(kelp::parse_needle_meta(body.subspan(4 + data_bytes), meta));
  const auto data = body.subspan(4, data_bytes);
  return {meta.flags, Bytes(data.begin(), data.end())};
}

/// The logical bytes, or the reason why there are none.
State inflate(const Bytes& stored, Bytes& logical) {
  GzipInflater inflater;
  inflater.reset(stored, {});
  Bytes out(10'000);
  GzipInflater::Turn turn{.bytes_produced = 0, .state = State::kMore};
  while (turn.state == State::kMore) {
    turn = inflater.inflate(out);
    logical.insert(logical.end(), out.begin(),
                   out.begin() + static_cast<std::ptrdiff_t>(turn.bytes_produced));
  }
  return turn.state;
}

}  // namespace

TEST_CASE("the stored bytes of every fixture record are the manifest's") {
  for (const ManifestRow& row : kelp::test::rows_with_records()) {
    if (!row.has("stored_sha256")) continue;
    CAPTURE(row.fid);
    const Stored stored = read_stored(row);
    CHECK(stored.data.size() == row.get<std::size_t>("stored_size"));
    CHECK(sha256_of(stored.data) == row.get<std::string>("stored_sha256"));
  }
}

TEST_CASE("fixture needles flagged as compressed inflate to what the server serves") {
  const std::set<std::string> broken{"gzip-broken-cut", "gzip-broken-crc", "gzip-broken-tail"};
  int inflated = 0;
  int refused = 0;
  for (const ManifestRow& row : kelp::test::rows_with_records()) {
    CAPTURE(row.family);
    CAPTURE(row.kind);
    if (!row.has("sha256")) continue;
    const Stored stored = read_stored(row);
    if ((stored.flags & kelp::kFlagCompressed) == 0 || !kelp::looks_like_gzip(stored.data)) {
      CHECK(row.get<std::size_t>("size") == stored.data.size());  // served as it is
      continue;
    }
    Bytes logical;
    const State state = inflate(stored.data, logical);
    if (broken.contains(row.kind)) {
      CHECK(state == State::kBroken);
      ++refused;
      continue;
    }
    CHECK(state == State::kEnd);
    CHECK(logical.size() == row.get<std::size_t>("size"));
    CHECK(sha256_of(logical) == row.get<std::string>("sha256"));
    ++inflated;
  }
  CHECK(inflated >= 20);
  CHECK(refused == 6);
}

TEST_CASE("a fixture needle flagged as compressed that is no gzip is told apart") {
  int told = 0;
  for (const ManifestRow& row : kelp::test::rows_with_records()) {
    if (row.kind != "gzip-flag-but-plain") continue;
    const Stored stored = read_stored(row);
    CHECK((stored.flags & kelp::kFlagCompressed) != 0);
    CHECK_FALSE(kelp::looks_like_gzip(stored.data));
    ++told;
  }
  CHECK(told == 2);
}
