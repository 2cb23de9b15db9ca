// Two workers, stepped by hand: requests that come in by the ring of the one that does not own the
// volume.
#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/worker/worker.h"
#include "shm_ring/ring.h"
#include "support/gzip_bomb.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;

constexpr std::uint32_t kEntries = 16;

/// A client of two workers, with one channel: ring w is worker w's.
struct TwoWorkers {
  explicit TwoWorkers(std::uint32_t ops = 64) {
    for (std::uint32_t i = 0; i < 2; ++i) {
      WorkerOptions options;
      options.index = i;
      options.workers = 2;
      options.ops = ops;
      options.loader.directories = {{dir.path().string(), ""}};
      options.loader.worker = i;
      options.loader.workers = 2;
      workers.push_back(std::make_unique<Worker>(options));
    }
    Worker::introduce(workers);
    const SegmentLayout layout{2, kEntries, 2 * kEntries};
    client.segment = ClientSegment::create(layout, 1 << 20, HugepageUse::kOff).value();
    for (std::uint32_t i = 0; i < 2; ++i) {
      int pair[2];
      REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
      ends.emplace_back(pair[1]);
      client.rings.push_back(std::make_unique<ServerRing>(
          client, i, UniqueFd(pair[0]), UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK))));
      REQUIRE(workers[i]->command({WorkerCommand::Kind::kAddRing, client.rings[i].get()}));
      std::byte* block = client.segment->ring_block(i);
      auto* control = reinterpret_cast<RingControl*>(block);
      const auto words = [&](std::size_t offset) {
        return reinterpret_cast<std::uint64_t*>(block + offset);
      };
      submissions[i] = {words(layout.submissions_offset()), kEntries, &control->submission_head};
      completions[i] = {words(layout.completions_offset()), 2 * kEntries,
                        &control->completion_head};
    }
  }

  void submit(std::uint32_t ring, kelp_fid fid, std::uint64_t tag,
              std::uint32_t timeout_us = 5'000'000) {
    Submission submission{};
    submission.op = OpCode::kRead;
    submission.tag = tag;
    submission.volume = fid.volume;
    submission.needle = fid.needle;
    submission.cookie = fid.cookie;
    submission.buffer_offset_bytes = tag * 4096;
    submission.length_bytes = 4096;
    submission.timeout_us = timeout_us;
    submissions[ring].push(submission);
  }

  /// Steps both until `ring` completes something.
  Completion reap(std::uint32_t ring) {
    std::optional<Completion> done;
    REQUIRE(eventually([&] {
      for (int i = 0; i < 300; ++i) {
        for (auto& worker : workers) worker->poll_once();
      }
      done = completions[ring].pop();
      return done.has_value();
    }));
    completions[ring].publish_head();
    return *done;
  }

  /// Reads by `ring` until the volume's index has been loaded.
  Completion read_when_served(std::uint32_t ring, kelp_fid fid) {
    Completion done{};
    REQUIRE(eventually([&] {
      submit(ring, fid, 1);
      done = reap(ring);
      return done.status != KELP_UNAVAILABLE;
    }));
    return done;
  }

  bool holds(std::uint64_t tag, const std::vector<std::byte>& data) {
    const auto buffer = client.segment->resolve(tag * 4096, 4096);
    return std::memcmp(buffer->data(), data.data(), data.size()) == 0;
  }

  TempDir dir;
  Client client{2};
  std::vector<UniqueFd> ends;
  RingProducer<Submission> submissions[2];
  RingConsumer<Completion> completions[2];
  std::vector<std::unique_ptr<Worker>> workers;  // ended before what they write to
};

TEST_CASE("a request by the wrong worker's ring is read by the owner and answered where it came") {
  TwoWorkers two;
  SmallVolume even(two.dir.path(), 4);
  SmallVolume odd(two.dir.path(), 5);
  const kelp_fid in_even = even.put(1, 2, pattern(1000, 1));
  const kelp_fid in_odd = odd.put(1, 3, pattern(2000, 2));
  for (const std::uint32_t ring : {0U, 1U}) {
    CAPTURE(ring);
    CHECK(two.read_when_served(ring, in_even).bytes == 1000);
    CHECK(two.holds(1, pattern(1000, 1)));
    CHECK(two.read_when_served(ring, in_odd).bytes == 2000);
    CHECK(two.holds(1, pattern(2000, 2)));
  }
  CHECK(two.workers[0]->counters().forwarded.value() >= 1);
  CHECK(two.workers[1]->counters().forwarded.value() >= 1);
  // Each worker found its own volume only.
  CHECK(two.workers[0]->loader().catalog().reports().size() == 1);
  CHECK(two.workers[1]->loader().catalog().reports().size() == 1);
}

TEST_CASE("an error of the owner comes back as it is") {
  TwoWorkers two;
  SmallVolume odd(two.dir.path(), 5);
  const kelp_fid fid = odd.put(1, 3, pattern(10, 2));
  REQUIRE(two.read_when_served(0, fid).status == KELP_OK);
  two.submit(0, {5, 4, 1}, 2);
  CHECK(two.reap(0).status == KELP_WRONG_COOKIE);
  two.submit(0, {5, 3, 9}, 3);
  CHECK(two.reap(0).status == KELP_NOT_FOUND);
}

TEST_CASE("an owner that stands still costs a deadline, and the buffer stays held until it moves") {
  TwoWorkers two;
  SmallVolume odd(two.dir.path(), 5);
  const kelp_fid fid = odd.put(1, 3, pattern(10, 2));
  REQUIRE(two.read_when_served(0, fid).status == KELP_OK);
  two.submit(0, fid, 7, 1000);
  std::optional<Completion> done;
  REQUIRE(eventually([&] {
    for (int i = 0; i < 300; ++i) two.workers[0]->poll_once();
    done = two.completions[0].pop();
    return done.has_value();
  }));
  CHECK(done->status == KELP_DEADLINE);
  CHECK((done->flags & KELP_FLAG_BUFFER_HELD) != 0);
  const Completion released = two.reap(0);
  CHECK(released.tag == 7);
  CHECK(released.flags == kFlagReleased);
}

TEST_CASE("two workers full of requests for each other answer all of them") {
  TwoWorkers two(8);
  SmallVolume even(two.dir.path(), 4);
  SmallVolume odd(two.dir.path(), 5);
  const kelp_fid in_even = even.put(1, 2, pattern(100, 1));
  const kelp_fid in_odd = odd.put(1, 3, pattern(100, 2));
  REQUIRE(two.read_when_served(0, in_odd).status == KELP_OK);
  REQUIRE(two.read_when_served(1, in_even).status == KELP_OK);
  for (int round = 0; round < 100; ++round) {
    for (std::uint64_t tag = 0; tag < kEntries; ++tag) {
      two.submit(0, in_odd, tag);
      two.submit(1, in_even, tag + kEntries);
    }
    for (std::uint64_t i = 0; i < kEntries; ++i) {
      for (const std::uint32_t ring : {0U, 1U}) {
        const Completion done = two.reap(ring);
        // More than half of the ops out at once are sent away, none is left without an answer.
        CHECK((done.status == KELP_OK || done.status == KELP_UNAVAILABLE));
        if (done.status == KELP_OK) CHECK(two.holds(done.tag, pattern(100, ring == 0 ? 2 : 1)));
      }
    }
  }
}

TEST_CASE("a client that goes while the owner reads leaves when that has ended") {
  TwoWorkers two;
  SmallVolume odd(two.dir.path(), 5);
  const kelp_fid fid = odd.put(1, 3, pattern(10, 2));
  REQUIRE(two.read_when_served(0, fid).status == KELP_OK);
  two.submit(0, fid, 7);
  two.workers[0]->poll_once();  // handed over
  REQUIRE(two.workers[0]->command({WorkerCommand::Kind::kRemoveRing, two.client.rings[0].get()}));
  for (int i = 0; i < 1000; ++i) two.workers[0]->poll_once();
  CHECK_FALSE(two.workers[0]->take_report());
  CHECK(eventually([&] {
    for (int i = 0; i < 300; ++i) {
      for (auto& worker : two.workers) worker->poll_once();
    }
    return two.workers[0]->take_report().has_value();
  }));
  CHECK(two.client.rings[0]->in_flight() == 0);
}

TEST_CASE("an owner gives up what it does for a client that has gone from another worker") {
  // Should this thread not run for as long as the loader takes, that ends it by itself: try again.
  for (int attempt = 0; attempt < 20; ++attempt) {
    TwoWorkers two;
    SmallVolume odd(two.dir.path(), 5);
    const kelp_fid small = odd.put(1, 3, pattern(10, 2));
    const kelp_fid bomb = odd.put(2, 3, gzip_bomb(250), kFlagCompressed);
    REQUIRE(two.read_when_served(0, small).status == KELP_OK);
    two.submit(0, bomb, 7, 60'000'000);
    const auto step = [&] {
      for (int i = 0; i < 300; ++i) {  // they look at the time now and then
        for (auto& worker : two.workers) worker->poll_once();
      }
    };
    REQUIRE(eventually([&] {
      step();
      return two.workers[1]->counters().private_handed_over.value() == 1;
    }));
    REQUIRE(two.workers[0]->command({WorkerCommand::Kind::kRemoveRing, two.client.rings[0].get()}));
    REQUIRE(eventually([&] {
      step();
      return two.workers[0]->take_report().has_value();
    }));
    CHECK(two.client.rings[0]->in_flight() == 0);
    if (two.workers[1]->counters().given_up.value() == 1) return;
  }
  FAIL("inflated to its end each time");
}

}  // namespace
