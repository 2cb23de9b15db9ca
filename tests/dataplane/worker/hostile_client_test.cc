// Clients that write into the shared memory whatever they like.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <random>
#include <thread>

#include "support/raw_client.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;
using Drive = TestDaemonOptions::Drive;

constexpr int kPunch = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

/// A daemon the test steps, with a volume in which needle 1 is there to be read.
struct Served {
  explicit Served(Drive drive = Drive::kStepped) : volume(dir.path(), 3) {
    fid = volume.put(1, 0x1234, pattern(3000, 1));
    TestDaemonOptions options;
    options.drive = drive;
    options.worker.loader.directories = {{dir.path().string(), ""}};
    daemon = std::make_unique<TestDaemon>(options);
    if (drive == Drive::kStepped) {
      daemon->step_until([&] { return daemon->worker().loader().settled(); });
      daemon->step_until([] { return true; });
    }
  }
  Submission read(std::uint64_t tag = 0) const {
    Submission entry{};
    entry.op = OpCode::kRead;
    entry.tag = tag;
    entry.volume = 3;
    entry.needle = 1;
    entry.cookie = 0x1234;
    entry.length_bytes = 4096;
    return entry;
  }
  Completion answer_to(const RawClient& client, std::uint32_t index, const Submission& entry) {
    client.set_completion_head(index);
    client.put(index, entry);
    daemon->step_until([&] { return client.completion(index).sequence == index + 1; });
    return client.completion(index);
  }

  /// Of `count` reads of needle 1 by somebody else, those that are not answered with its bytes.
  int wrong_reads(TestClient& witness, int count) const {
    const auto data = pattern(3000, 1);
    int wrong = 0;
    for (int i = 0; i < count; ++i) {
      const kelp_completion done = witness.run(witness.read(fid));
      if (done.status != KELP_OK || std::memcmp(witness.buffer, data.data(), 3000) != 0) ++wrong;
    }
    return wrong;
  }

  TempDir dir;
  SmallVolume volume;
  kelp_fid fid{};
  std::unique_ptr<TestDaemon> daemon;
};

TEST_CASE(
    "a request with anything unknown or out of bounds is INVALID and its neighbours are not") {
  Served served;
  RawClient client(*served.daemon, 1, 64 * 1024);
  std::uint32_t index = 0;
  const auto status_of = [&](auto change) {
    Submission entry = served.read(index);
    change(entry);
    const Completion bad = served.answer_to(client, index, entry);
    CHECK(bad.tag == index);
    ++index;
    CHECK(served.answer_to(client, index++, served.read()).status == KELP_OK);
    return bad.status;
  };
  CHECK(status_of([](auto& e) { e.op = OpCode{3}; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.op = OpCode{255}; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.reserved = 1; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.flags = 1; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.flags = 0x8000; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.extra = 1; }) == KELP_OK);
  CHECK(status_of([](auto& e) { e.extra = 64 * 1024 - 1024 + 1; }) == KELP_OK);
  CHECK(status_of([](auto& e) { e.extra = 64 * 1024 - 1024 + 2; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.extra = UINT64_MAX; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.op = OpCode::kNop, e.extra = 1; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.length_bytes = 0; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.length_bytes = 64 * 1024 + 1; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.length_bytes = UINT32_MAX; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.buffer_offset_bytes = 64 * 1024; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.buffer_offset_bytes = 64 * 1024 - 4095; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.buffer_offset_bytes = UINT64_MAX; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.buffer_offset_bytes = UINT64_MAX - 4095; }) == KELP_INVALID);
  CHECK(status_of([](auto& e) { e.offset_bytes = UINT64_MAX; }) == KELP_RANGE);
  CHECK(status_of([](auto& e) { e.offset_bytes = 3001; }) == KELP_RANGE);
  CHECK(status_of([](auto& e) { e.volume = UINT32_MAX; }) == KELP_UNAVAILABLE);
  CHECK(status_of([](auto& e) { e.needle = UINT64_MAX; }) == KELP_NOT_FOUND);
  CHECK(status_of([](auto& e) { e.cookie = 0; }) == KELP_WRONG_COOKIE);
  CHECK(status_of([](auto& e) { e.timeout_us = 0; }) == KELP_OK);
  CHECK(served.daemon->broken_rings() == 0);
}

TEST_CASE("random entries with a valid lap mark are each answered, in bounds, with their tag") {
  Served served;
  RawClient client(*served.daemon, 1, 64 * 1024);
  std::mt19937_64 random(7);
  for (std::uint32_t index = 0; index < 20'000; ++index) {
    Submission entry;
    std::uint64_t words[8];
    for (std::uint64_t& word : words) word = random();
    std::memcpy(&entry, words, sizeof entry);
    if (random() % 2 == 0) {  // close to sound: one field random at a time
      const Submission wild = entry;
      entry = served.read();
      entry.timeout_us = wild.timeout_us;
      switch (random() % 8) {
        case 0:
          entry.op = wild.op;
          break;
        case 1:
          entry.flags = wild.flags;
          break;
        case 2:
          entry.needle = wild.needle;
          break;
        case 3:
          entry.offset_bytes = wild.offset_bytes >> random() % 64;
          break;
        case 4:
          entry.buffer_offset_bytes = wild.buffer_offset_bytes >> random() % 64;
          break;
        case 5:
          entry.length_bytes = wild.length_bytes >> random() % 32;
          break;
        case 6:
          entry.extra = wild.extra;
          break;
        default:
          entry.op = OpCode::kStat;
          break;
      }
    }
    entry.tag = index;
    client.set_completion_head(index);
    client.put(index, entry);
    REQUIRE(
        served.daemon->step_until([&] { return client.completion(index).sequence == index + 1; }));
    REQUIRE(client.completion(index).tag == index);
    REQUIRE(client.completion(index).status < 32);
  }
  CHECK(served.daemon->broken_rings() == 0);
}

TEST_CASE("entries with a wrong lap mark are not taken") {
  Served served;
  RawClient client(*served.daemon);
  for (const std::uint32_t mark : {0U, 2U, 5U, 100U, UINT32_MAX}) {
    CAPTURE(mark);
    Submission entry = served.read();
    entry.sequence = mark;
    client.put_as_is(0, entry);
    for (int i = 0; i < 10; ++i) served.daemon->step();
    CHECK(client.completion(0).sequence == 0);
  }
  CHECK(served.answer_to(client, 0, served.read()).status == KELP_OK);
}

TEST_CASE(
    "a client with more in flight than it can be answered loses its rings, and no other client") {
  Served served;
  RawClient client(*served.daemon, 2);
  RawClient other(*served.daemon);
  // The ring of 4 has 8 places for answers, two for each request: the fifth unreaped is too many.
  std::uint32_t index = 0;
  while (served.daemon->broken_rings() == 0 && index < 100) {
    client.put(index++, served.read());
    served.daemon->step_until([&] {
      return served.daemon->broken_rings() != 0 || client.completion(index - 1).sequence == index;
    });
  }
  CHECK(index == 8);  // 7 answers unreaped leave no two places
  CHECK(client.state(0) == RingState::kCondemned);
  CHECK(client.state(1) == RingState::kCondemned);
  CHECK(served.daemon->worker().counters().rings_condemned.value() == 2);
  CHECK(served.answer_to(other, 0, served.read()).status == KELP_OK);

  client.set_completion_head(8);
  client.put(8, served.read(), 0);
  for (int i = 0; i < 100; ++i) served.daemon->step();
  CHECK(client.completion(8).sequence != 9);  // cut off for good
}

TEST_CASE("a completion head that lies costs its client the rings") {
  // Up to 6 behind is what a slow client looks like; all else nobody can have read.
  for (const std::uint32_t lie : {1U, 2U, 0x80000000U, UINT32_MAX - 6, UINT32_MAX - 8}) {
    CAPTURE(lie);
    Served served;
    RawClient client(*served.daemon);
    RawClient other(*served.daemon);
    client.set_completion_head(lie);
    client.put(0, served.read());
    CHECK(served.daemon->step_until([&] { return served.daemon->broken_rings() == 1; }));
    CHECK(client.state() == RingState::kCondemned);
    CHECK(served.answer_to(other, 0, served.read()).status == KELP_OK);
  }
}

TEST_CASE("a completion head that goes backwards is believed at its client's own cost") {
  Served served;
  RawClient client(*served.daemon);
  for (std::uint32_t index = 0; index < 6; ++index) {
    CHECK(served.answer_to(client, index, served.read()).status == KELP_OK);
  }
  client.set_completion_head(0);  // 6 unreaped: room for one more
  client.put(6, served.read(6));
  served.daemon->step_until([&] { return client.completion(6).sequence == 7; });
  CHECK(client.completion(6).tag == 6);
  client.put(7, served.read(7));
  CHECK(served.daemon->step_until([&] { return served.daemon->broken_rings() == 1; }));
}

TEST_CASE("the daemon's own words in shared memory are not what it goes by") {
  Served served;
  RawClient client(*served.daemon);
  std::memset(client.segment.data(), 0xff, kPageBytes);  // the header page
  for (std::uint32_t index = 0; index < 50; ++index) {
    client.control().submission_head = 0xdeadbeef;
    client.control().heartbeat = 0;
    client.control().state = 77;
    CHECK(served.answer_to(client, index, served.read(index)).status == KELP_OK);
    CHECK(client.completion(index).tag == index);
  }
}

TEST_CASE("a client that scribbles while it reads may get CORRUPT, others get their bytes") {
  Served served(Drive::kPumped);
  TestClient witness(*served.daemon);
  REQUIRE(witness.read_when_served(served.fid).status == KELP_OK);
  RawClient hostile(*served.daemon, 1, 64 * 1024);
  std::atomic<bool> over{false};
  std::thread scribbler([&] {
    std::mt19937_64 random(3);
    auto* const words = reinterpret_cast<std::uint64_t*>(hostile.data.data());
    while (!over.load()) __atomic_store_n(words + random() % 512, random(), __ATOMIC_RELAXED);
  });
  std::thread submitter([&] {
    for (std::uint32_t index = 0; !over.load(); ++index) {
      hostile.set_completion_head(index);
      hostile.put(index, served.read());
      while (hostile.completion(index).sequence != index + 1 && !over.load()) {
        std::this_thread::yield();
      }
    }
  });
  const int wrong = served.wrong_reads(witness, 500);
  over.store(true);
  scribbler.join();
  submitter.join();
  CHECK(wrong == 0);
  CHECK(served.daemon->broken_rings() == 0);
}

TEST_CASE(
    "a checksum spoilt in the client's memory is computed again and not held against anyone") {
  Served served(Drive::kPumped);
  served.volume.put(2, 7, pattern(1 << 20, 2));
  TestClient witness(*served.daemon);
  REQUIRE(witness.read_when_served(served.fid).status == KELP_OK);
  RawClient hostile(*served.daemon, 1, 1 << 20);
  std::atomic<bool> over{false};
  std::thread scribbler([&] {
    std::mt19937_64 random(5);
    auto* const words = reinterpret_cast<std::uint64_t*>(hostile.data.data());
    while (!over.load()) __atomic_store_n(words + random() % 131072, random(), __ATOMIC_RELAXED);
  });
  const WorkerCounters& counters = served.daemon->worker().counters();
  std::uint32_t index = 0;
  const bool spoilt = eventually([&] {
    Submission entry = served.read(index);
    entry.needle = 2;
    entry.cookie = 7;
    entry.length_bytes = 1 << 20;
    hostile.set_completion_head(index);
    hostile.put(index, entry);
    eventually([&] { return hostile.completion(index).sequence == index + 1; });
    CHECK(hostile.completion(index).status == KELP_OK);
    ++index;
    return counters.private_handed_over.value() >= 3;
  });
  over.store(true);
  scribbler.join();
  CHECK(spoilt);
  for (const VolumeReport& volume : served.daemon->worker().loader().catalog().reports()) {
    CHECK(volume.counters->corrupt.load() == 0);
  }
  CHECK(witness.run(witness.read(served.fid)).status == KELP_OK);
}

TEST_CASE("doorbells rung without end, and filled up, cost others nothing but time") {
  Served served(Drive::kThread);
  TestClient witness(*served.daemon);
  REQUIRE(witness.read_when_served(served.fid).status == KELP_OK);
  RawClient hostile(*served.daemon, 2, 64 * 1024);
  const int bell = hostile.fds[4].get();  // two memories, two wake sockets, then the eventfds
  const std::uint64_t most = UINT64_MAX - 1;
  // The second ring's counter is full for good, as is its wake socket in a moment.
  REQUIRE(::write(hostile.fds[5].get(), &most, sizeof most) == sizeof most);
  std::atomic<bool> over{false};
  std::thread ringer([&] {
    const std::uint64_t one = 1;
    for (std::uint32_t index = 0; !over.load(); ++index) {
      static_cast<void>(!::write(bell, &one, sizeof one));
      for (std::uint32_t ring = 0; ring < 2; ++ring) {
        hostile.set_completion_head(index, ring);
        __atomic_store_n(&hostile.control(ring).client_sleeps, 1U, __ATOMIC_RELAXED);
        hostile.put(index, served.read(index), ring);
        while (hostile.completion(index, ring).sequence != index + 1 && !over.load()) {
          static_cast<void>(!::write(bell, &one, sizeof one));
        }
      }
    }
  });
  const int wrong = served.wrong_reads(witness, 500);
  over.store(true);
  ringer.join();
  CHECK(wrong == 0);
  CHECK(served.daemon->broken_rings() == 0);
  // And with quiet the worker sleeps again.
  const std::uint64_t sleeps = served.daemon->worker().counters().sleeps.value();
  CHECK(eventually([&] { return served.daemon->worker().counters().sleeps.value() > sleeps; }));
}

TEST_CASE("a request changes nothing outside its buffer, however it ends") {
  Served served;
  served.volume.put(2, 7, pattern(3000, 9));
  RawClient client(*served.daemon, 1, 64 * 1024);
  std::memset(client.data.data(), 0xee, client.data.size());
  std::uint32_t index = 0;
  const auto run = [&](auto change) {
    Submission entry = served.read(index);
    entry.buffer_offset_bytes = 8192;
    change(entry);
    const Completion done = served.answer_to(client, index, entry);
    ++index;
    return done.status;
  };
  CHECK(run([](auto&) {}) == KELP_OK);
  CHECK(run([](auto& e) { e.cookie = 1; }) == KELP_WRONG_COOKIE);
  CHECK(run([](auto& e) { e.needle = 99; }) == KELP_NOT_FOUND);
  CHECK(run([](auto& e) { e.offset_bytes = 2999; }) == KELP_OK);
  CHECK(run([](auto& e) { e.offset_bytes = 3001; }) == KELP_RANGE);
  CHECK(run([](auto& e) { e.length_bytes = 1; }) == KELP_OK);
  CHECK(run([](auto& e) { e.op = OpCode::kStat; }) == KELP_OK);
  CHECK(run([](auto& e) { e.op = OpCode{9}; }) == KELP_INVALID);
  CHECK(run([](auto& e) { e.volume = 77; }) == KELP_UNAVAILABLE);
  std::size_t changed = 0;
  for (std::size_t i = 0; i < client.data.size(); ++i) {
    if ((i < 8192 || i >= 8192 + 4096) && client.data.data()[i] != std::byte{0xee}) ++changed;
  }
  CHECK(changed == 0);
}

TEST_CASE("rings full of noise, rewritten all the time, break nothing but themselves") {
  Served served(Drive::kPumped);
  TestClient witness(*served.daemon);
  REQUIRE(witness.read_when_served(served.fid).status == KELP_OK);
  RawClient hostile(*served.daemon, 4, 64 * 1024);
  std::atomic<bool> over{false};
  std::thread noise([&] {
    std::mt19937_64 random(11);
    auto* const words = reinterpret_cast<std::uint64_t*>(hostile.segment.data());
    const std::size_t count = hostile.layout.segment_bytes() / 8;
    while (!over.load()) {
      // Small numbers hit lap marks, heads and flags; large ones everything else.
      const std::uint64_t value = random() % 2 == 0 ? random() % 16 : random();
      __atomic_store_n(words + random() % count, value, __ATOMIC_RELAXED);
    }
  });
  const int wrong = served.wrong_reads(witness, 1000);
  over.store(true);
  noise.join();
  CHECK(wrong == 0);
}

TEST_CASE("holes punched into both memories while reads run harm only their client") {
  Served served(Drive::kPumped);
  TestClient witness(*served.daemon);
  REQUIRE(witness.read_when_served(served.fid).status == KELP_OK);
  RawClient hostile(*served.daemon, 1, 64 * 1024);
  std::atomic<bool> over{false};
  std::thread puncher([&] {
    for (std::uint32_t index = 0; !over.load(); ++index) {
      hostile.put(index, served.read());
      ::fallocate(hostile.fds[1].get(), kPunch, 0, 64 * 1024);
      ::fallocate(hostile.fds[0].get(), kPunch, 0,
                  static_cast<off_t>(hostile.layout.segment_bytes()));
      hostile.set_completion_head(index);
    }
  });
  const int wrong = served.wrong_reads(witness, 500);
  over.store(true);
  puncher.join();
  CHECK(wrong == 0);
}

TEST_CASE("a client cannot resize what it was given") {
  Served served;
  RawClient client(*served.daemon);
  for (const int which : {0, 1}) {
    const int fd = client.fds[static_cast<std::size_t>(which)].get();
    CHECK(::ftruncate(fd, 0) != 0);
    CHECK(::ftruncate(fd, 1 << 30) != 0);
  }
}

}  // namespace
