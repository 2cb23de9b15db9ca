// Reads end to end: volume, freshness, index, storage, and what becomes of them when time is up.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>

#include "dataplane/worker/served.h"
#include "dataplane/worker/while_committing.h"
#include "support/gzip_bomb.h"
#include "support/raw_client.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

TEST_CASE("what the server acknowledged is shown by the very next read") {
  Served served;
  const kelp_fid first = served.volume.put(1, 2, pattern(100, 1));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(first).status == KELP_OK);
  for (std::uint64_t i = 2; i < 200; ++i) {
    const kelp_fid fid = served.volume.put(i, 2, pattern(i, i));
    REQUIRE(client.run(client.read(fid)).bytes == i);
    REQUIRE(holds(client.buffer, pattern(i, i)));
    served.volume.put(i, 2, pattern(i + 1, i));
    REQUIRE(client.run(client.read(fid)).bytes == i + 1);
    if (i % 3 == 0) {
      served.volume.remove(i);
      REQUIRE(client.run(client.read(fid)).status == KELP_NOT_FOUND);
    }
  }
}

TEST_CASE("while a worker does not serve, reads go to HTTP, volumes rest and no-ops are answered") {
  Served served;
  const kelp_fid fid = served.volume.put(1, 2, pattern(100, 1));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  served.daemon->worker().set_serving(false);
  const std::uint64_t read_before =
      served.counters().storage_inline.value() + served.counters().storage_waits.value();
  kelp_request stat = client.read(fid);
  stat.op = KELP_OP_STAT;
  CHECK(client.run(client.read(fid)).status == KELP_USE_HTTP);
  CHECK(client.run(stat).status == KELP_USE_HTTP);
  CHECK(client.run(client.read({99, 2, 1})).status == KELP_USE_HTTP);
  CHECK(client.run(client.nop(1)).status == KELP_OK);
  CHECK(served.counters().storage_inline.value() + served.counters().storage_waits.value() ==
        read_before);
  served.daemon->worker().set_serving(true);
  CHECK(client.run(client.read(fid)).status == KELP_OK);
}

TEST_CASE("stat tells the size, the checksum and how the record lies there") {
  Served served;
  const auto data = pattern(777, 1);
  const kelp_fid fid = served.volume.put(1, 2, data);
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  kelp_request request = client.read(fid);
  request.op = KELP_OP_STAT;
  const kelp_completion done = client.run(request);
  REQUIRE(done.status == KELP_OK);
  kelp_stat stat;
  std::memcpy(&stat, client.buffer, sizeof stat);
  CHECK(stat.total == 777);
  CHECK(stat.stored == 777);
  CHECK(stat.crc32c == crc32c(data));
  CHECK(stat.version == 3);
}

TEST_CASE("a volume nobody has is UNAVAILABLE, and served as soon as it is there") {
  Served served;
  served.start();
  TestClient client(*served.daemon);
  CHECK(client.run(client.read({8, 2, 1})).status == KELP_UNAVAILABLE);
  SmallVolume late(served.dir.path(), 8);
  const kelp_fid fid = late.put(1, 2, pattern(100, 1));
  CHECK(client.read_when_served(fid).status == KELP_OK);
  late.unlink_all();
  CHECK(eventually([&] { return client.run(client.read(fid)).status == KELP_UNAVAILABLE; }));
}

TEST_CASE("large needles are read whole, in slices, and in parts") {
  Served served;
  const auto data = pattern(3'000'000, 5);
  const kelp_fid fid = served.volume.put(1, 2, data);
  served.start();
  TestClient client(*served.daemon, 1, 8 << 20);
  void* large = nullptr;
  REQUIRE(kelp_buffer_alloc(client.connection, 4 << 20, &large) == KELP_OK);
  kelp_request request = client.read(fid, 0, 4 << 20);
  request.buffer = large;
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  kelp_completion done = client.run(request);
  CHECK(done.bytes == 3'000'000);
  CHECK((done.flags & KELP_FLAG_CRC_VERIFIED) != 0);
  CHECK(holds(large, data));
  request.offset = 1'234'567;
  request.length = 1'000'000;
  done = client.run(request);
  CHECK(done.bytes == 1'000'000);
  CHECK((done.flags & KELP_FLAG_TRUNCATED) != 0);
  CHECK(std::memcmp(large, data.data() + 1'234'567, 1'000'000) == 0);
}

TEST_CASE("pages that are not in memory are read by the storage thread, with the same bytes") {
  Served served;
  const auto data = pattern(500'000, 5);
  const kelp_fid fid = served.volume.put(1, 2, data);
  served.start();
  TestClient client(*served.daemon, 1, 8 << 20);
  void* large = nullptr;
  REQUIRE(kelp_buffer_alloc(client.connection, 1 << 20, &large) == KELP_OK);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  for (int i = 0; i < 50; ++i) {
    REQUIRE(::fsync(served.volume.dat_fd()) == 0);
    REQUIRE(::posix_fadvise(served.volume.dat_fd(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    kelp_request request = client.read(fid, 0, 1 << 20);
    request.buffer = large;
    const kelp_completion done = client.run(request);
    REQUIRE(done.status == KELP_OK);
    REQUIRE(holds(large, data));
  }
  if (served.counters().storage_waits.value() == 0) {
    MESSAGE("skipped: this file system keeps all pages in memory, or never says it would wait");
  }
}

TEST_CASE("a volume replaced by a vacuum is read from its new files, without an error between") {
  Served served(Drive::kThread, 30'000'000);
  std::vector<kelp_fid> fids;
  for (std::uint64_t i = 1; i < 50; ++i) fids.push_back(served.volume.put(i, 2, pattern(i, i)));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fids[0]).status == KELP_OK);
  for (int round = 0; round < 20; ++round) {
    served.volume.vacuum();
    for (std::size_t i = 0; i < fids.size(); ++i) {
      const kelp_completion done = client.run(client.read(fids[i]));
      REQUIRE(done.status == KELP_OK);
      REQUIRE(holds(client.buffer, pattern(i + 1, i + 1)));
    }
  }
  CHECK(served.counters().volume_waits.value() > 0);
}

TEST_CASE("reads wait for a vacuum's commit, and are answered when it is over") {
  while_committing([] {
    Served served(Drive::kPumped, 30'000'000);
    const kelp_fid fid = served.volume.put(1, 2, pattern(100, 1));
    served.start();
    TestClient client(*served.daemon);
    REQUIRE(client.read_when_served(fid).status == KELP_OK);
    const auto began = std::chrono::steady_clock::now();
    served.volume.begin_commit();
    for (std::uint64_t tag = 0; tag < 4; ++tag) {
      kelp_request request = client.read(fid, tag, 1024, 20'000'000);
      request.buffer = static_cast<std::byte*>(client.buffer) + tag * 1024;
      REQUIRE(client.submit(request) == KELP_OK);
    }
    const auto all_wait = [&] { return served.counters().volume_waits.value() >= 4; };
    REQUIRE(eventually([&] { return all_wait() || !is_waited_for(began); }));
    const bool none_is_answered = client.reap(0).empty();
    served.volume.unmark_compaction();
    if (!is_waited_for(began)) return false;
    CHECK(all_wait());
    CHECK(none_is_answered);
    std::size_t answered = 0;
    while (answered < 4) {
      const auto done = client.reap();
      REQUIRE_FALSE(done.empty());
      for (const kelp_completion& each : done) CHECK(each.status == KELP_OK);
      answered += done.size();
    }
    return true;
  });
}

TEST_CASE("a read that waits for a volume too long is sent elsewhere, or ends at its deadline") {
  while_committing([] {
    Served served(Drive::kPumped, 20'000);
    const kelp_fid fid = served.volume.put(1, 2, pattern(100, 1));
    served.start();
    TestClient client(*served.daemon);
    REQUIRE(client.read_when_served(fid).status == KELP_OK);
    const auto began = std::chrono::steady_clock::now();
    served.volume.begin_commit();
    const kelp_completion patient = client.run(client.read(fid, 0, 1024, 10'000'000));
    const kelp_completion late = client.run(client.read(fid, 0, 1024, 2'000));
    if (!is_waited_for(began)) return false;
    CHECK(patient.status == KELP_UNAVAILABLE);
    CHECK(late.status == KELP_DEADLINE);
    CHECK(served.counters().buffers_held.value() == 0);  // nothing was writing
    served.volume.unmark_compaction();
    return true;
  });
}

TEST_CASE("small compressed needles are inflated at once, large ones by the loader") {
  Served served;
  const auto small = pattern(2000, 1);
  std::vector<std::byte> large(1'000'000, std::byte{7});
  std::vector<std::byte> noisy = pattern(9'000'000, 9);  // more than a turn from the disk
  const kelp_fid one = served.volume.put(1, 2, gzip_member(small), kFlagCompressed);
  const kelp_fid two = served.volume.put(2, 2, gzip_member(large), kFlagCompressed);
  const kelp_fid three = served.volume.put(3, 2, gzip_member(noisy), kFlagCompressed);
  served.start();
  TestClient client(*served.daemon, 1, 12 << 20);
  void* buffer = nullptr;
  REQUIRE(kelp_buffer_alloc(client.connection, 9 << 20, &buffer) == KELP_OK);
  REQUIRE(client.read_when_served(one).status == KELP_OK);
  CHECK(served.counters().private_handed_over.value() == 0);
  const auto check = [&](const kelp_fid& fid, const std::vector<std::byte>& data) {
    kelp_request request = client.read(fid, 0, 9 << 20);
    request.buffer = buffer;
    const kelp_completion done = client.run(request);
    CHECK(done.status == KELP_OK);
    CHECK(done.total == data.size());
    CHECK((done.flags & KELP_FLAG_INFLATED) != 0);
    CHECK(holds(buffer, data));
  };
  check(one, small);
  check(two, large);
  check(three, noisy);
  CHECK(served.counters().private_inline.value() >= 2);
  CHECK(served.counters().private_handed_over.value() == 2);
}

TEST_CASE("a bomb in work does not hold up small reads, and its client may leave meanwhile") {
  Served served;
  const kelp_fid bomb = served.volume.put(1, 2, gzip_bomb(256), kFlagCompressed);
  const kelp_fid small = served.volume.put(2, 2, pattern(100, 2));
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(small).status == KELP_OK);
  {
    TestClient bomber(*served.daemon);
    REQUIRE(bomber.submit(bomber.read(bomb, 1, 1000)) == KELP_OK);
    REQUIRE(eventually([&] { return served.counters().private_handed_over.value() == 1; }));
  }
  for (int i = 0; i < 100; ++i) REQUIRE(client.run(client.read(small)).status == KELP_OK);
  CHECK(eventually([&] { return served.daemon->clients() == 1; }));
}

TEST_CASE("a deadline that passes while the loader writes is answered HELD, then RELEASED, once") {
  Served served(Drive::kStepped);
  const kelp_fid bomb = served.volume.put(1, 2, gzip_bomb(250), kFlagCompressed);
  served.start();
  TestDaemon& daemon = *served.daemon;
  REQUIRE(daemon.step_until([&] { return daemon.worker().loader().settled(); }));
  RawClient client(daemon);
  Submission entry{};
  entry.op = OpCode::kRead;
  entry.volume = bomb.volume;
  entry.cookie = bomb.cookie;
  entry.needle = bomb.needle;
  entry.length_bytes = 4096;
  entry.timeout_us = 1000;
  entry.tag = 77;
  std::uint32_t next = 0;  // completion
  std::uint32_t held = 0;
  // Should this thread not run for as long as the loader takes, that ends it by itself: try again.
  for (std::uint32_t attempt = 0; attempt < 20 && served.counters().given_up.value() == 0;
       ++attempt) {
    client.put(attempt, entry);
    REQUIRE(daemon.step_until([&] { return client.completion(next).sequence == next + 1; }));
    if ((client.completion(next).flags & KELP_FLAG_BUFFER_HELD) != 0) {
      ++held;
      CHECK(client.completion(next).status == KELP_DEADLINE);
      CHECK(client.completion(next).tag == 77);
      ++next;
      REQUIRE(daemon.step_until([&] { return client.completion(next).sequence == next + 1; }));
      CHECK(client.completion(next).flags == kFlagReleased);
      CHECK(client.completion(next).tag == 77);
    }
    client.set_completion_head(++next);
  }
  for (int i = 0; i < 1000; ++i) daemon.step();
  CHECK(client.completion(next).sequence != next + 1);
  CHECK(served.counters().buffers_held.value() == held);
  CHECK(served.counters().buffers_released.value() == held);
  CHECK(served.counters().given_up.value() == 1);  // not inflated to its end
}

TEST_CASE("the storage thread does not read on what nobody waits for") {
  constexpr std::size_t kBytes = 64 << 20;
  Served served(Drive::kThread);
  const kelp_fid fid = served.volume.put(1, 2, pattern(kBytes, 5));
  const kelp_fid small = served.volume.put(2, 2, pattern(100, 2));
  served.start();
  TestClient client(*served.daemon, 1, kBytes + (2 << 20));
  void* large = nullptr;
  REQUIRE(kelp_buffer_alloc(client.connection, kBytes, &large) == KELP_OK);
  REQUIRE(client.read_when_served(small).status == KELP_OK);
  for (int i = 0; i < 20 && served.counters().given_up.value() == 0; ++i) {
    REQUIRE(::fsync(served.volume.dat_fd()) == 0);
    REQUIRE(::posix_fadvise(served.volume.dat_fd(), 0, 0, POSIX_FADV_DONTNEED) == 0);
    kelp_request request = client.read(fid, 0, kBytes, 1000);
    request.buffer = large;
    REQUIRE(eventually([&] {  // until it is released by the one before
      client.reap(0);
      return client.submit(request) == KELP_OK;
    }));
    REQUIRE(client.reap().size() == 1);
  }
  if (served.counters().storage_waits.value() == 0) {
    MESSAGE("skipped: this file system keeps all pages in memory, or never says it would wait");
    return;
  }
  CHECK(served.counters().given_up.value() > 0);
}

TEST_CASE("bytes that do not fit their checksum are CORRUPT, never OK") {
  Served served;
  const auto data = pattern(5000, 1);
  const kelp_fid fid = served.volume.put(1, 2, data);
  served.start();
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(fid).status == KELP_OK);
  const std::byte flipped = ~data[2500];
  REQUIRE(::pwrite(served.volume.dat_fd(), &flipped, 1, 8 + 20 + 2500) == 1);
  CHECK(client.run(client.read(fid)).status == KELP_CORRUPT);
}

TEST_CASE("thousands of reads that waited for one volume are answered in bounded turns") {
  while_committing([] {
    TempDir dir;
    SmallVolume volume(dir.path(), 3);
    volume.put(1, 0, pattern(100, 1));
    TestDaemonOptions options;
    options.drive = Drive::kStepped;
    options.ring_entries = 1024;
    options.worker.reload_wait_us = 60'000'000;
    options.worker.loader.directories = {{dir.path().string(), ""}};
    TestDaemon daemon(options);
    RawClient client(daemon);
    REQUIRE(daemon.step_until([&] { return daemon.worker().loader().settled(); }));
    daemon.step_until([] { return true; });
    const auto began = std::chrono::steady_clock::now();
    volume.begin_commit();
    for (std::uint32_t i = 0; i < 1024; ++i) {
      Submission entry{};
      entry.op = OpCode::kRead;
      entry.volume = 3;
      entry.needle = 1;
      entry.tag = i;
      entry.length_bytes = 4096;
      client.put(i, entry);
    }
    const WorkerCounters& counters = daemon.worker().counters();
    const auto all_wait = [&] { return counters.volume_waits.value() >= 1024; };
    REQUIRE(daemon.step_until([&] { return all_wait() || !is_waited_for(began); }));
    volume.unmark_compaction();
    if (!is_waited_for(began)) return false;
    std::uint64_t before = 0;
    const auto answered = [&] { return counters.completions[KELP_OK].value(); };
    REQUIRE(eventually([&] {
      daemon.step();
      const std::uint64_t now = answered();
      CHECK(now - before <= 32);
      before = now;
      return now == 1024;
    }));
    return true;
  });
}

}  // namespace
