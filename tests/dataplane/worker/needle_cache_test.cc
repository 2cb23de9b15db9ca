// Needles kept in memory: what is kept, for how long, and what a worker serves from there.
#include "dataplane/worker/needle_cache.h"

#include <doctest/doctest.h>

#include <cstring>

#include "dataplane/worker/served.h"
#include "support/raw_client.h"

namespace {

using namespace kelp;
using namespace kelp::test;

NeedleCache::Key key(std::uint64_t needle) {
  return {7, needle * 4096, needle, 3, 100};
}

struct Cached : Served {
  Cached() { options.worker.cache_bytes = 1 << 20; }
};

}  // namespace

TEST_CASE("a needle is kept when it is offered again, and found by all of its key") {
  NeedleCache cache(1 << 20);
  const auto data = pattern(8192, 1);
  CHECK_FALSE(cache.find(key(1)));
  CHECK_FALSE(cache.offer(key(1), {data, 11}));
  CHECK_FALSE(cache.find(key(1)));
  CHECK(cache.offer(key(1), {data, 11}));
  const auto found = cache.find(key(1));
  REQUIRE(found);
  CHECK(found->crc32c == 11);
  CHECK(std::ranges::equal(found->bytes, data));
  for (int part = 0; part < 5; ++part) {
    NeedleCache::Key other = key(1);
    if (part == 0) ++other.generation;
    if (part == 1) ++other.offset_bytes;
    if (part == 2) ++other.needle;
    if (part == 3) ++other.cookie;
    if (part == 4) ++other.body_bytes;
    CHECK_FALSE(cache.find(other));
  }
  const auto longer = pattern(8193, 1);
  CHECK_FALSE(cache.offer(key(2), {longer, 1}));
  CHECK_FALSE(cache.offer(key(2), {longer, 1}));
}

TEST_CASE("whatever comes and goes, what is found is what was offered") {
  NeedleCache cache(64 * 8192);
  std::uint64_t state = 1;
  int hits = 0;
  for (int i = 0; i < 200'000; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407;
    const std::uint64_t needle = (state >> 33) % 128;
    const auto data = pattern(needle * 60, needle);
    if (const auto found = cache.find(key(needle))) {
      REQUIRE(std::ranges::equal(found->bytes, data));
      ++hits;
    } else {
      cache.offer(key(needle), {data, static_cast<std::uint32_t>(needle)});
    }
  }
  CHECK(hits > 1000);
}

TEST_CASE("a needle read again and again comes from memory, until it is another one") {
  Cached served;
  const kelp_fid fid = served.volume.put(1, 2, pattern(4096, 1));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  client.run(client.read(fid));
  std::memset(client.buffer, 0, 4096);
  const kelp_completion kept = client.run(client.read(fid));
  CHECK(kept.status == KELP_OK);
  CHECK(kept.path == KELP_PATH_CACHE);
  CHECK(kept.bytes == 4096);
  CHECK((kept.flags & KELP_FLAG_CRC_VERIFIED) != 0);
  CHECK(holds(client.buffer, pattern(4096, 1)));

  // A part of it, its end, and beyond.
  const auto range = [&](std::uint64_t offset) {
    kelp_request request = client.read(fid);
    request.offset = offset;
    request.length = 50;
    return client.run(request);
  };
  const kelp_completion part = range(100);
  CHECK(part.path == KELP_PATH_CACHE);
  CHECK(part.bytes == 50);
  CHECK(part.total == 4096);
  const auto whole = pattern(4096, 1);
  CHECK(std::memcmp(client.buffer, whole.data() + 100, 50) == 0);
  CHECK(range(4096).bytes == 0);
  CHECK(range(4097).status == KELP_RANGE);

  kelp_fid wrong = fid;
  wrong.cookie ^= 1;
  CHECK(client.run(client.read(wrong)).status == KELP_WRONG_COOKIE);

  served.volume.put(1, 2, pattern(3000, 9));
  const kelp_completion newer = client.run(client.read(fid));
  CHECK(newer.path == KELP_PATH_LOCAL);
  CHECK(newer.bytes == 3000);
  CHECK(holds(client.buffer, pattern(3000, 9)));
  served.volume.remove(1);
  CHECK(client.run(client.read(fid)).status == KELP_NOT_FOUND);
}

TEST_CASE("what is kept of a volume is forgotten with its files") {
  Cached served;
  const kelp_fid fid = served.volume.put(1, 2, pattern(4096, 1));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  client.run(client.read(fid));
  REQUIRE(client.run(client.read(fid)).path == KELP_PATH_CACHE);
  served.volume.vacuum();
  const kelp_completion after = client.run(client.read(fid));
  CHECK(after.status == KELP_OK);
  CHECK(after.path == KELP_PATH_LOCAL);
  CHECK(holds(client.buffer, pattern(4096, 1)));
}

TEST_CASE("a needle with a time to live is read each time") {
  Cached served;
  TestNeedle needle{.id = 1, .cookie = 2, .data = pattern(100, 1)};
  needle.last_modified_s = static_cast<std::uint64_t>(::time(nullptr));
  needle.append_at_ns = *needle.last_modified_s * 1'000'000'000;
  needle.ttl = Ttl{5, 1};
  served.volume.VolumeWriter::put(needle);
  served.start();
  TestClient client(*served.daemon);
  const kelp_fid fid{3, 2, 1};
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  for (int i = 0; i < 5; ++i) CHECK(client.run(client.read(fid)).path == KELP_PATH_LOCAL);
}
