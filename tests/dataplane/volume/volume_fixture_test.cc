// Every fixture row that is not erasure-coded: from file id to bytes, as a stock server answers.
#include <doctest/doctest.h>
#include <openssl/sha.h>

#include <array>
#include <map>

#include "dataplane/volume/catalog.h"
#include "shm_ring/file_id.h"
#include "support/fixture_manifest.h"
#include "support/read_driver.h"
#include "support/volume_opening.h"

using kelp::test::ManifestRow;
using kelp::test::read_manifest;
using kelp::test::ReadResult;

namespace {

std::string sha256(const std::vector<std::byte>& bytes) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest;
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), digest.data());
  std::string text;
  for (const unsigned char byte : digest) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

/// The volumes of one fixture directory, opened as the daemon opens them.
class Served {
 public:
  explicit Served(const std::filesystem::path& directory) : catalog_({{directory, ""}}) {
    for (const auto& change : catalog_.scan()) {
      const auto open = catalog_.begin_open(change.key);
      REQUIRE(open != nullptr);
      kelp::VolumeOpen::Turn turn = kelp::VolumeOpen::Turn::kMore;
      while (turn == kelp::VolumeOpen::Turn::kMore) turn = open->step();
      INFO(open->failure().reason);
      REQUIRE(turn == kelp::VolumeOpen::Turn::kDone);
      volumes_[change.key.id] = open->take();
      REQUIRE(volumes_[change.key.id]->refresh() == kelp::Volume::Freshness::kCurrent);
    }
    REQUIRE(catalog_.troubles().empty());
  }

  ReadResult read(const kelp::FileId& id, std::uint64_t offset, std::size_t capacity,
                  std::uint32_t guess, bool stat = false) const {
    ReadResult result;
    const auto volume = volumes_.find(id.volume);
    if (volume == volumes_.end()) return result;
    const auto at = volume->second->find(id.needle);
    if (!at) {
      result.outcome.status = KELP_NOT_FOUND;
      return result;
    }
    kelp::ReadRequest request;
    request.record = {.location = *at,
                      .needle = id.needle,
                      .cookie = id.cookie,
                      .version = volume->second->version()};
    request.dat_fd = volume->second->dat_fd();
    request.wrap_bytes = volume->second->wrap_bytes();
    request.offset_bytes = offset;
    request.stat = stat;
    return kelp::test::read_needle(request, capacity, guess);
  }

 private:
  kelp::Catalog catalog_;
  std::map<kelp::VolumeId, std::unique_ptr<kelp::Volume>> volumes_;
};

bool may_refuse(const ManifestRow& row) {
  return row.has("also_ok") || row.has("chunk_manifest");
}

int status_now(const ManifestRow& row) {
  return row.has("expires_at_ns") &&
                 kelp::wall_clock_ns() >= row.get<std::uint64_t>("expires_at_ns")
             ? row.get<int>("status_after_expiry")
             : row.get<int>("status");
}

void check_body(const Served& served, const ManifestRow& row, const kelp::FileId& id) {
  const auto size = row.get<std::size_t>("size");
  for (const std::uint32_t guess : {0, 8, 30, 608}) {
    for (const std::size_t spare : {0, 1, 1000}) {
      const ReadResult whole = served.read(id, 0, std::max<std::size_t>(size + spare, 1), guess);
      if (whole.outcome.status != KELP_OK && may_refuse(row)) return;
      REQUIRE(whole.outcome.status == KELP_OK);
      CHECK(whole.outcome.total_bytes == size);
      CHECK((whole.outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0);
      CHECK(sha256(whole.bytes) == row.get<std::string>("sha256"));
    }
  }
  for (const auto& range : row.fields.value("ranges", nlohmann::json::array())) {
    const auto offset = range.at("offset").get<std::uint64_t>();
    const auto capacity = range.at("size").get<std::size_t>();
    CAPTURE(offset);
    CAPTURE(capacity);
    const ReadResult part = served.read(id, offset, std::max<std::size_t>(capacity, 1), 8);
    if (offset > size) {
      CHECK(part.outcome.status == KELP_RANGE);
      continue;
    }
    REQUIRE(part.outcome.status == KELP_OK);
    CHECK(sha256(part.bytes) == range.at("sha256").get<std::string>());
  }
  const ReadResult stat = served.read(id, 0, 100'000, 8, true);
  REQUIRE(stat.outcome.status == KELP_OK);
  CHECK(stat.outcome.total_bytes == size);
}

}  // namespace

TEST_CASE("every fixture row reads as the stock server answered it") {
  int bodies = 0;
  int refusals = 0;
  for (const std::string& family : kelp::test::fixture_families()) {
    const Served sound(kelp::test::fixtures_dir() / family / "vs");
    const Served broken(kelp::test::fixtures_dir() / family / "broken");
    for (const ManifestRow& row : read_manifest(family)) {
      if (row.set == "ec") continue;
      CAPTURE(row.family);
      CAPTURE(row.kind);
      CAPTURE(row.fid);
      const auto id = kelp::parse_file_id(row.fid);
      const int status = status_now(row);
      if (status == 400) {
        CHECK_FALSE(id);
        continue;
      }
      REQUIRE(id);
      const Served& served = row.set == "broken" ? broken : sound;
      if (status == 200) {
        check_body(served, row, *id);
        ++bodies;
        continue;
      }
      const kelp_status got = served.read(*id, 0, 1000, 8).outcome.status;
      CHECK(got != KELP_OK);
      if (status == 500) CHECK(got == KELP_CORRUPT);
      if (row.kind == "deleted" || row.kind == "vacuumed-gone") CHECK(got == KELP_NOT_FOUND);
      if (row.kind == "wrong-cookie") CHECK(got == KELP_WRONG_COOKIE);
      ++refusals;
    }
  }
  CHECK(bodies > 100);
  CHECK(refusals > 20);
}
