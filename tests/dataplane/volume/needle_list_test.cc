#include "dataplane/volume/needle_list.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <map>

#include "support/small_volume.h"
#include "support/temp_dir.h"

namespace {

using namespace kelp;
using namespace kelp::test;

struct Listing {
  TempDir dir;
  SmallVolume volume{dir.path(), 3};
  std::atomic<bool> stop{false};

  VolumePaths paths() const {
    VolumePaths paths;
    paths.dat = (dir.path() / "3.dat").string();
    paths.idx = (dir.path() / "3.idx").string();
    return paths;
  }
  Result<NeedlePage> page(NeedlePageRequest request) const {
    request.deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    return list_needles(paths(), OffsetWidth::kFour, request, stop);
  }
  /// All pages, put together.
  std::vector<std::uint64_t> all(std::uint32_t limit) const {
    std::vector<std::uint64_t> ids;
    std::optional<std::uint64_t> from = 0;
    while (from) {
      const auto got = page({.from = *from, .limit = limit, .deadline = {}});
      REQUIRE(got);
      REQUIRE(got->needles.size() <= limit);
      for (const ListedNeedle& needle : got->needles) {
        ids.push_back(static_cast<std::uint64_t>(needle.id));
      }
      REQUIRE((!got->next || *got->next > *from));
      from = got->next;
    }
    return ids;
  }
};

}  // namespace

TEST_CASE("pages of any size list every live needle once, by id, whatever the order of the rows") {
  Listing listing;
  std::map<std::uint64_t, bool> live;
  std::uint64_t state = 7;
  for (int i = 0; i < 500; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const std::uint64_t id = state >> 57;
    if ((state >> 40) % 3 == 0 && live.contains(id)) {
      listing.volume.remove(id);
      live.erase(id);
    } else {
      listing.volume.put(id, 1, pattern(10, id));
      live[id] = true;
    }
  }
  std::vector<std::uint64_t> expected;
  for (const auto& [id, unused] : live) expected.push_back(id);
  for (const std::uint32_t limit : {1u, 2u, 7u, 100u, 1000u}) {
    CAPTURE(limit);
    CHECK(listing.all(limit) == expected);
  }
}

TEST_CASE("a listed needle has the place and size of its last row, and the cookie of its record") {
  Listing listing;
  listing.volume.put(5, 0xaa, pattern(10, 1));
  listing.volume.put(5, 0xbb, pattern(2000, 1));
  const auto plain = listing.page({.deadline = {}});
  REQUIRE(plain);
  REQUIRE(plain->needles.size() == 1);
  CHECK_FALSE(plain->needles[0].cookie);
  CHECK(plain->needles[0].body_bytes > 2000);
  const auto with = listing.page({.cookies = true, .deadline = {}});
  REQUIRE(with);
  CHECK(with->needles[0].cookie == Cookie{0xbb});
  CHECK(with->needles[0].offset_bytes == plain->needles[0].offset_bytes);
  CHECK_FALSE(with->next);
}

TEST_CASE("a record that is another needle's, or is not there, has no cookie") {
  Listing listing;
  listing.volume.put(5, 0xaa, pattern(10, 1));
  std::filesystem::resize_file(listing.paths().dat, 8);
  const auto page = listing.page({.cookies = true, .deadline = {}});
  REQUIRE(page);
  REQUIRE(page->needles.size() == 1);
  CHECK_FALSE(page->needles[0].cookie);
}

TEST_CASE("a listing ends at its deadline, when told to, and without its files") {
  Listing listing;
  listing.volume.put(5, 0xaa, pattern(10, 1));
  CHECK_FALSE(list_needles(listing.paths(), OffsetWidth::kFour, {.deadline = {}}, listing.stop));
  CHECK_FALSE(list_needles(listing.paths(), OffsetWidth::kUnknown, {.deadline = {}}, listing.stop));
  listing.stop = true;
  CHECK_FALSE(listing.page({.deadline = {}}));
  listing.stop = false;
  std::filesystem::remove(listing.paths().idx);
  CHECK_FALSE(listing.page({.deadline = {}}));
  REQUIRE(::mkfifo(listing.paths().idx.c_str(), 0600) == 0);
  CHECK_FALSE(listing.page({.deadline = {}}));
}
