// libkelp with a real worker behind a stand-in listener.
#include <doctest/doctest.h>
#include <poll.h>

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "shm_ring/kelp.h"
#include "support/gzip_bomb.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

/// A daemon that serves volume 3, in which needle i is pattern(i * 100, i).
struct Served {
  explicit Served(Drive drive = Drive::kPumped) : volume(dir.path(), 3) {
    for (std::uint64_t i = 0; i < 20; ++i) fids.push_back(volume.put(i, 0x1000, data(i)));
    TestDaemonOptions options;
    options.drive = drive;
    options.worker.loader.directories = {{dir.path().string(), ""}};
    daemon = std::make_unique<TestDaemon>(options);
  }
  static std::vector<std::byte> data(std::uint64_t i) { return pattern(i * 100, i); }

  TempDir dir;
  SmallVolume volume;
  std::vector<kelp_fid> fids;
  std::unique_ptr<TestDaemon> daemon;
};

bool holds(const void* buffer, const std::vector<std::byte>& data) {
  return data.empty() || std::memcmp(buffer, data.data(), data.size()) == 0;
}

TEST_CASE("a no-op goes round and brings its tag back") {
  TestDaemon daemon;
  TestClient client(daemon);
  for (std::uint64_t tag : {std::uint64_t{0}, std::uint64_t{77}, UINT64_MAX}) {
    REQUIRE(client.submit(client.nop(tag)) == KELP_OK);
    const auto done = client.reap();
    REQUIRE(done.size() == 1);
    CHECK(done[0].tag == tag);
    CHECK(done[0].status == KELP_OK);
    CHECK(done[0].path == KELP_PATH_NONE);
  }
}

TEST_CASE("an event loop of the program's own is woken by what completes") {
  TestDaemon daemon({.drive = Drive::kThread, .ring_entries = 4, .worker = {}});
  TestClient client(daemon);
  std::array<int, 8> fds{};
  std::uint32_t count = 0;
  REQUIRE(kelp_channel_fds(client.channel, fds.data(), 8, &count) == KELP_OK);
  REQUIRE(count == 2);  // a worker's, and the daemon's socket
  constexpr int kTurns = 50;
  int woken = 0;
  for (int turn = 0; turn < kTurns; ++turn) {
    REQUIRE(client.submit(client.nop(7)) == KELP_OK);
    std::vector<kelp_completion> done;
    // A wake-up for what was found without one may come late, and then there is nothing yet.
    while (done.empty()) {
      std::uint32_t ready = 0;
      REQUIRE(kelp_channel_arm(client.channel, &ready) == KELP_OK);
      std::array<pollfd, 2> entries{{{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}}};
      const int events = ready != 0 ? 0 : ::poll(entries.data(), 2, 10'000);
      REQUIRE((ready != 0 || events == 1));
      CHECK(entries[1].revents == 0);
      REQUIRE(kelp_channel_disarm(client.channel, events) == KELP_OK);
      woken += events;
      done = client.reap(0);
    }
    REQUIRE(done.size() == 1);
    CHECK(done[0].tag == 7);
  }
  CHECK(woken <= kTurns);  // late or not, there is one of each completion at most
  // Nothing is left that would wake it again, but for one that comes late.
  CHECK(eventually([&] {
    std::uint32_t ready = 1;
    REQUIRE(kelp_channel_arm(client.channel, &ready) == KELP_OK);
    CHECK(ready == 0);
    REQUIRE(kelp_channel_disarm(client.channel, 1) == KELP_OK);
    pollfd entry{fds[0], POLLIN, 0};
    return ::poll(&entry, 1, 0) == 0;
  }));
}

TEST_CASE("the calls for event loops want what they are to fill") {
  TestDaemon daemon;
  TestClient client(daemon);
  std::uint32_t count = 0;
  CHECK(kelp_channel_fds(client.channel, nullptr, 0, &count) == KELP_OK);
  CHECK(count == 2);
  CHECK(kelp_channel_fds(client.channel, nullptr, 1, &count) == KELP_USAGE);
  CHECK(kelp_channel_fds(nullptr, nullptr, 0, &count) == KELP_USAGE);
  CHECK(kelp_channel_arm(client.channel, nullptr) == KELP_USAGE);
  CHECK(kelp_channel_disarm(nullptr, 0) == KELP_USAGE);
}

TEST_CASE("a read brings the needle, checked, and says which way it came") {
  Served served;
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(served.fids[7]).status == KELP_OK);
  for (std::uint64_t i = 0; i < served.fids.size(); ++i) {
    CAPTURE(i);
    const kelp_completion done = client.run(client.read(served.fids[i]));
    CHECK(done.status == KELP_OK);
    CHECK(done.bytes == i * 100);
    CHECK(done.total == i * 100);
    CHECK(done.path == KELP_PATH_LOCAL);
    CHECK((done.flags & KELP_FLAG_CRC_VERIFIED) != 0);
    CHECK(holds(client.buffer, Served::data(i)));
  }
}

TEST_CASE("kelp_read takes the text of a file id and answers the read's own status") {
  Served served;
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(served.fids[7]).status == KELP_OK);
  kelp_completion done;
  CHECK(kelp_read(client.channel, "3,0700001000", 0, client.buffer, 4096, 0, &done) == KELP_OK);
  CHECK(done.bytes == 700);
  CHECK(kelp_read(client.channel, "3,0700001000", 600, client.buffer, 4096, 0, &done) == KELP_OK);
  CHECK(done.bytes == 100);
  CHECK(kelp_read(client.channel, "3,0700001000", 701, client.buffer, 1, 0, nullptr) == KELP_RANGE);
  CHECK(kelp_read(client.channel, "3,0700001001", 0, client.buffer, 1, 0, nullptr) ==
        KELP_WRONG_COOKIE);
  CHECK(kelp_read(client.channel, "3,7700001000", 0, client.buffer, 1, 0, nullptr) ==
        KELP_NOT_FOUND);
  CHECK(kelp_read(client.channel, "4,0700001000", 0, client.buffer, 1, 0, nullptr) ==
        KELP_UNAVAILABLE);
  CHECK(kelp_read(client.channel, "seven", 0, client.buffer, 1, 0, nullptr) == KELP_BAD_FID);
}

TEST_CASE("a full ring refuses, takes the rest after a reap, and loses nothing") {
  TestDaemonOptions options;
  options.drive = Drive::kStepped;
  TestDaemon daemon(options);
  TestClient client(daemon);
  CHECK(kelp_channel_capacity(client.channel) == 4);
  std::vector<kelp_request> batch;
  for (std::uint64_t tag = 0; tag < 6; ++tag) batch.push_back(client.nop(tag));
  std::uint32_t accepted = 0;
  CHECK(kelp_submit(client.channel, batch.data(), 6, &accepted) == KELP_RING_FULL);
  CHECK(accepted == 4);
  CHECK(client.reap(0).empty());
  REQUIRE(daemon.step_until([&] { return daemon.worker().counters().nops.value() == 4; }));
  CHECK(client.reap().size() == 4);
  CHECK(kelp_submit(client.channel, batch.data() + 4, 2, &accepted) == KELP_OK);
  CHECK(accepted == 2);
}

TEST_CASE("requests that make no sense are refused by name and cost no place in the ring") {
  TestDaemon daemon;
  TestClient client(daemon);
  const kelp_request good = client.read({3, 0, 1}, 0, 100);
  const auto refused = [&](auto change) {
    kelp_request request = good;
    change(request);
    return client.submit(request);
  };
  auto* const start = static_cast<std::byte*>(client.buffer);
  for (int i = 0; i < 3; ++i) {  // more often than there are places
    CHECK(refused([](auto& r) { r.length = 0; }) == KELP_USAGE);
    CHECK(refused([](auto& r) { r.op = 3; }) == KELP_USAGE);
    CHECK(refused([](auto& r) { r.op = UINT32_MAX; }) == KELP_USAGE);
    CHECK(refused([](auto& r) { r.reserved = 1; }) == KELP_USAGE);
    CHECK(refused([](auto& r) { r.buffer = nullptr; }) == KELP_BAD_BUFFER);
    CHECK(refused([&](auto& r) { r.buffer = &daemon; }) == KELP_BAD_BUFFER);
    CHECK(refused([&](auto& r) { r.buffer = start - 1; }) == KELP_BAD_BUFFER);
    CHECK(refused([&](auto& r) { r.buffer = start + 64 * 1024; }) == KELP_BAD_BUFFER);
    CHECK(refused([&](auto& r) { r.buffer = start + 64 * 1024 - 99; }) == KELP_BAD_BUFFER);
    CHECK(refused([](auto& r) { r.length = UINT32_MAX; }) == KELP_BAD_BUFFER);
  }
  CHECK(client.submit(good) == KELP_OK);
  CHECK(client.reap().size() == 1);
  REQUIRE(kelp_buffer_free(client.connection, client.buffer) == KELP_OK);
  CHECK(client.submit(good) == KELP_BAD_BUFFER);
  CHECK(kelp_buffer_free(client.connection, client.buffer) == KELP_BAD_BUFFER);
  CHECK(kelp_submit(client.channel, nullptr, 1, nullptr) == KELP_USAGE);
  CHECK(kelp_submit(nullptr, &good, 1, nullptr) == KELP_USAGE);
  CHECK(kelp_submit(client.channel, nullptr, 0, nullptr) == KELP_OK);
}

TEST_CASE("kelp_read on a channel with requests in flight is a usage error") {
  TestDaemonOptions options;
  options.drive = Drive::kStepped;
  TestDaemon daemon(options);
  TestClient client(daemon);
  REQUIRE(client.submit(client.nop(1)) == KELP_OK);
  CHECK(kelp_read(client.channel, "3,0100001000", 0, client.buffer, 1, 0, nullptr) == KELP_USAGE);
}

TEST_CASE("kelp_read_many goes deeper than the ring, and bad requests spoil only themselves") {
  Served served;
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(served.fids[1]).status == KELP_OK);
  std::vector<kelp_request> requests;
  for (std::uint32_t i = 0; i < 60; ++i) {
    kelp_request request = client.read(served.fids[i % 20], 1000 + i, 1024);
    request.buffer = static_cast<std::byte*>(client.buffer) + i * 1024;
    if (i % 7 == 3) request.length = 0;
    if (i % 7 == 5) request.buffer = nullptr;
    requests.push_back(request);
  }
  std::vector<kelp_completion> done(60);
  REQUIRE(kelp_read_many(client.channel, requests.data(), 60, done.data()) == KELP_OK);
  for (std::uint32_t i = 0; i < 60; ++i) {
    CAPTURE(i);
    CHECK(done[i].tag == 1000 + i);
    if (i % 7 == 3) {
      CHECK(done[i].status == KELP_USAGE);
    } else if (i % 7 == 5) {
      CHECK(done[i].status == KELP_BAD_BUFFER);
    } else {
      CHECK(done[i].status == KELP_OK);
      auto expected = Served::data(i % 20);
      CHECK(done[i].total == expected.size());
      expected.resize(std::min<std::size_t>(expected.size(), 1024));
      CHECK(done[i].bytes == expected.size());
      CHECK(((done[i].flags & KELP_FLAG_TRUNCATED) != 0) == (done[i].total > 1024));
      CHECK(holds(requests[i].buffer, expected));
    }
  }
  CHECK(kelp_read_many(client.channel, nullptr, 0, nullptr) == KELP_OK);
}

TEST_CASE("a worker that stands still costs a deadline, not a hang, and the buffer is withheld") {
  Served served;
  TestClient client(*served.daemon);
  REQUIRE(client.read_when_served(served.fids[5]).status == KELP_OK);
  served.daemon->pause();
  REQUIRE(client.submit(client.read(served.fids[5], 42, 1000, 20'000)) == KELP_OK);
  const auto done = client.reap();
  REQUIRE(done.size() == 1);
  CHECK(done[0].tag == 42);
  CHECK(done[0].status == KELP_DEADLINE);
  CHECK((done[0].flags & KELP_FLAG_BUFFER_HELD) != 0);
  CHECK(client.submit(client.read(served.fids[5])) == KELP_BUFFER_BUSY);

  void* other = nullptr;
  REQUIRE(kelp_buffer_alloc(client.connection, 4096, &other) == KELP_OK);
  served.daemon->resume();
  // The late answer is no answer to anyone, but lets go of the buffer.
  CHECK(eventually([&] {
    CHECK(client.reap(0).empty());
    return client.submit(client.read(served.fids[6], 43)) == KELP_OK;
  }));
  const auto second = client.reap();
  REQUIRE(second.size() == 1);
  CHECK(second[0].tag == 43);
  CHECK(holds(client.buffer, Served::data(6)));
}

TEST_CASE("a buffer freed while its read is overdue is handed out only after the late answer") {
  TestDaemon daemon;
  TestClient client(daemon, 1, 64 * 1024);  // the data area is this one buffer
  daemon.pause();
  REQUIRE(client.submit(client.read({3, 0, 1}, 1, 1000, 1000)) == KELP_OK);
  REQUIRE(client.reap().size() == 1);
  CHECK(kelp_buffer_free(client.connection, client.buffer) == KELP_OK);
  void* again = nullptr;
  CHECK(kelp_buffer_alloc(client.connection, 4096, &again) == KELP_NO_MEMORY);
  daemon.resume();
  CHECK(eventually([&] {
    client.reap(0);
    return kelp_buffer_alloc(client.connection, 64 * 1024, &again) == KELP_OK;
  }));
}

TEST_CASE("what a closed channel left in flight comes back to the pool by itself") {
  TestDaemon daemon;
  TestClient client(daemon, 1, 64 * 1024);
  daemon.pause();
  REQUIRE(client.submit(client.read({3, 0, 1}, 1, 1000)) == KELP_OK);
  kelp_channel_close(client.channel);
  CHECK(kelp_buffer_free(client.connection, client.buffer) == KELP_OK);
  void* again = nullptr;
  CHECK(kelp_buffer_alloc(client.connection, 4096, &again) == KELP_NO_MEMORY);
  daemon.resume();
  CHECK(eventually(
      [&] { return kelp_buffer_alloc(client.connection, 64 * 1024, &again) == KELP_OK; }));
}

TEST_CASE("a channel opened after one with requests in flight sees none of their answers") {
  TestDaemon daemon;
  TestClient client(daemon);
  daemon.pause();
  for (std::uint64_t tag = 0; tag < 3; ++tag) REQUIRE(client.submit(client.nop(tag)) == KELP_OK);
  kelp_channel_close(client.channel);
  REQUIRE(kelp_channel_open(client.connection, &client.channel) == KELP_OK);
  REQUIRE(client.submit(client.nop(99)) == KELP_OK);
  CHECK(client.submit(client.nop(100)) == KELP_RING_FULL);  // the others still have their places
  daemon.resume();
  const auto done = client.reap();
  REQUIRE(done.size() == 1);
  CHECK(done[0].tag == 99);
}

TEST_CASE("a bomb that outlasts its deadline is answered with the buffer held, then released") {
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  const kelp_fid bomb = volume.put(1, 2, gzip_bomb(128), kelp::kFlagCompressed);
  const kelp_fid small = volume.put(2, 2, pattern(100, 2));
  TestDaemonOptions options;
  options.drive = Drive::kThread;  // its timers do not depend on how often a test polls
  options.worker.loader.directories = {{dir.path().string(), ""}};
  TestDaemon daemon(options);
  TestClient client(daemon);
  REQUIRE(client.read_when_served(small).status == KELP_OK);
  kelp_completion done{};
  // Should neither worker nor this thread run for as long as the loader takes, the answer is OK.
  kelp_status status = KELP_OK;
  for (int attempt = 0; attempt < 20 && status == KELP_OK; ++attempt) {
    status = kelp_read(client.channel, "3,0100000002", 0, client.buffer, 1000, 1000, &done);
  }
  REQUIRE(status == KELP_DEADLINE);
  CHECK((done.flags & KELP_FLAG_BUFFER_HELD) != 0);
  CHECK(eventually([&] {  // soon after: what nobody waits for is given up
    client.reap(0);
    return client.submit(client.read(small, 5)) == KELP_OK;
  }));
  const auto after = client.reap();
  REQUIRE(after.size() == 1);
  CHECK(after[0].status == KELP_OK);
  CHECK(holds(client.buffer, pattern(100, 2)));
  // Who answered, daemon or library, depends on how busy the machine is; worker_read_test.cc has
  // the daemon's part for certain.
  CHECK(bomb.volume == 3);
}

TEST_CASE("a buffer that is held is refused until it is released") {
  TempDir dir;
  SmallVolume volume(dir.path(), 3);
  const kelp_fid small = volume.put(2, 2, pattern(100, 2));
  TestDaemonOptions options;
  options.worker.loader.directories = {{dir.path().string(), ""}};
  TestDaemon daemon(options);
  TestClient client(daemon);
  REQUIRE(client.read_when_served(small).status == KELP_OK);
  daemon.pause();
  REQUIRE(client.submit(client.read(small, 1, 1000, 1000)) == KELP_OK);
  const auto late = client.reap();
  REQUIRE(late.size() == 1);
  CHECK(late[0].status == KELP_DEADLINE);
  CHECK((late[0].flags & KELP_FLAG_BUFFER_HELD) != 0);
  CHECK(client.submit(client.read(small)) == KELP_BUFFER_BUSY);
  daemon.resume();
  CHECK(eventually([&] {
    client.reap(0);
    return client.submit(client.read(small, 5)) == KELP_OK;
  }));
  const auto after = client.reap();
  REQUIRE(after.size() == 1);
  CHECK(after[0].status == KELP_OK);
  CHECK(holds(client.buffer, pattern(100, 2)));
}

TEST_CASE("every channel there is can be opened, one more cannot, a closed one can again") {
  TestDaemon daemon;
  TestClient client(daemon, 2);
  kelp_channel* second = nullptr;
  kelp_channel* third = nullptr;
  CHECK(kelp_channel_open(client.connection, &second) == KELP_OK);
  CHECK(kelp_channel_open(client.connection, &third) == KELP_NO_CHANNEL);
  kelp_channel_close(second);
  CHECK(kelp_channel_open(client.connection, &third) == KELP_OK);
}

TEST_CASE("two threads on two channels of one connection each get their own answers") {
  Served served(Drive::kThread);
  TestClient client(*served.daemon, 2);
  REQUIRE(client.read_when_served(served.fids[1]).status == KELP_OK);
  std::atomic<int> wrong{0};
  const auto work = [&](kelp_channel* channel, std::uint64_t seed) {
    for (std::uint64_t i = 0; i < 500; ++i) {
      void* buffer = nullptr;
      if (kelp_buffer_alloc(client.connection, 2048, &buffer) != KELP_OK) wrong.fetch_add(1);
      const std::uint64_t which = (i * seed) % 20;
      kelp_request request = client.read(served.fids[which], i, 2048);
      request.buffer = buffer;
      kelp_completion done{};
      if (kelp_read_many(channel, &request, 1, &done) != KELP_OK || done.status != KELP_OK ||
          done.bytes != which * 100 || !holds(buffer, Served::data(which))) {
        wrong.fetch_add(1);
      }
      if (kelp_buffer_free(client.connection, buffer) != KELP_OK) wrong.fetch_add(1);
    }
  };
  kelp_channel* second = nullptr;
  REQUIRE(kelp_channel_open(client.connection, &second) == KELP_OK);
  std::thread other([&] { work(second, 7); });
  work(client.channel, 3);
  other.join();
  CHECK(wrong.load() == 0);
}

TEST_CASE("a reap that may not wait does not, and one that may wakes when its time is up") {
  TestDaemon daemon;
  TestClient client(daemon);
  CHECK(client.reap(0).empty());
  CHECK(client.last_status == KELP_OK);
  CHECK(client.reap(20'000).empty());
  CHECK(client.last_status == KELP_OK);
  kelp_completion out;
  std::uint32_t reaped;
  CHECK(kelp_reap(client.channel, nullptr, 1, 0, &reaped) == KELP_USAGE);
  CHECK(kelp_reap(client.channel, &out, 0, 0, &reaped) == KELP_USAGE);
  CHECK(kelp_reap(client.channel, &out, 1, 0, nullptr) == KELP_USAGE);
  CHECK(kelp_reap(nullptr, &out, 1, 0, &reaped) == KELP_USAGE);
}

TEST_CASE("a draining daemon answers what it has and sends new requests elsewhere") {
  TestDaemon daemon;
  TestClient client(daemon);
  REQUIRE(client.submit(client.nop(1)) == KELP_OK);
  CHECK(client.reap().size() == 1);
  daemon.drain();
  CHECK(eventually([&] { return daemon.drained(); }));
  CHECK(client.submit(client.nop(2)) == KELP_DISCONNECTED);
  CHECK(std::string(kelp_error_detail()).find("stopping") != std::string::npos);
}

}  // namespace
