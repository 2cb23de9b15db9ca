// ClientRing against a daemon that the test plays by hand.
#include "shm_ring/client_ring.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <memory>
#include <vector>

namespace {

using namespace kelp;

constexpr SegmentLayout kLayout{1, 4, 8};

struct Played {
  Played()
      : block(static_cast<std::byte*>(std::aligned_alloc(kPageBytes, kLayout.ring_bytes())),
              &std::free),
        pool(1 << 20) {
    std::fill_n(block.get(), kLayout.ring_bytes(), std::byte{0});
    auto* control = reinterpret_cast<RingControl*>(block.get());
    const auto words = [&](std::size_t offset) {
      return reinterpret_cast<std::uint64_t*>(block.get() + offset);
    };
    submissions = {words(kLayout.submissions_offset()), 4, &control->submission_head};
    completions = {words(kLayout.completions_offset()), 8, &control->completion_head};
    ring = std::make_unique<ClientRing>(block.get(), kLayout, pool, UniqueFd(), UniqueFd());
    buffer = *pool.alloc(4096);
  }

  kelp_status submit(std::uint64_t tag, std::uint32_t length = 100, Ticks deadline = 1000) {
    kelp_request request{};
    request.tag = tag;
    request.length = length;
    return ring->submit(request, {buffer, length}, 0, 1000, deadline);
  }
  /// The next submission, as the daemon sees it.
  Submission take() {
    const auto entry = submissions.pop();
    submissions.publish_head();
    REQUIRE(entry);
    return *entry;
  }
  void answer(std::uint64_t tag, std::uint16_t flags = 0, std::uint8_t status = KELP_OK,
              std::uint32_t bytes = 0) {
    Completion completion{};
    completion.tag = tag;
    completion.flags = flags;
    completion.status = status;
    completion.bytes = bytes;
    REQUIRE(completions.has_space());
    completions.push(completion);
  }
  std::vector<kelp_completion> reap(std::uint32_t max = 8) {
    std::vector<kelp_completion> out(max);
    out.resize(ring->reap(out.data(), max));
    return out;
  }
  std::vector<kelp_completion> reap_overdue(Ticks now, std::uint32_t max = 8) {
    std::vector<kelp_completion> out(max);
    out.resize(ring->reap_overdue(now, out.data(), max));
    return out;
  }

  std::unique_ptr<std::byte, decltype(&std::free)> block;
  BufferPool pool;
  RingConsumer<Submission> submissions;
  RingProducer<Completion> completions;
  std::unique_ptr<ClientRing> ring;
  std::uint64_t buffer = 0;
};

TEST_CASE("a ring takes as many requests as it has slots, also when the daemon has read them") {
  Played played;
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(played.submit(tag) == KELP_OK);
  CHECK(played.submit(4) == KELP_RING_FULL);
  const std::uint64_t first = played.take().tag;
  CHECK(played.submit(4) == KELP_RING_FULL);
  played.answer(first);
  CHECK(played.submit(4) == KELP_RING_FULL);  // answered, not reaped
  CHECK(played.reap().size() == 1);
  CHECK(played.submit(4) == KELP_OK);
}

TEST_CASE("answers carry the caller's tag in whatever order they come") {
  Played played;
  std::vector<std::uint64_t> tags;
  for (std::uint64_t tag = 10; tag < 14; ++tag) {
    REQUIRE(played.submit(tag) == KELP_OK);
    tags.push_back(played.take().tag);
  }
  for (const int which : {2, 0, 3, 1}) played.answer(tags[static_cast<std::size_t>(which)]);
  const auto done = played.reap();
  REQUIRE(done.size() == 4);
  CHECK(done[0].tag == 12);
  CHECK(done[1].tag == 10);
  CHECK(done[2].tag == 13);
  CHECK(done[3].tag == 11);
}

TEST_CASE("an answer with a tag that fits nothing is dropped") {
  Played played;
  REQUIRE(played.submit(7) == KELP_OK);
  const std::uint64_t tag = played.take().tag;
  for (const std::uint64_t lie : {std::uint64_t{0}, UINT64_MAX, tag + 1, tag + 4,
                                  tag + (std::uint64_t{1} << 32), tag - (std::uint64_t{1} << 32)}) {
    CAPTURE(lie);
    played.answer(lie);
    CHECK(played.reap().empty());
  }
  played.answer(tag);
  CHECK(played.reap().size() == 1);
  played.answer(tag);  // a second time: the place is free
  CHECK(played.reap().empty());
}

TEST_CASE("more bytes than were asked for are not believed") {
  Played played;
  REQUIRE(played.submit(7, 100) == KELP_OK);
  played.answer(played.take().tag, 0, KELP_OK, UINT32_MAX);
  CHECK(played.reap().at(0).bytes == 100);
}

TEST_CASE("a release of what was never held is ignored, and the answer still comes") {
  Played played;
  REQUIRE(played.submit(7) == KELP_OK);
  const std::uint64_t tag = played.take().tag;
  played.answer(tag, kFlagReleased);
  CHECK(played.reap().empty());
  CHECK(played.ring->unanswered() == 1);
  CHECK(played.pool.free(played.buffer));
  CHECK(played.pool.free_bytes() < 1 << 20);  // still in flight, so still withheld
  played.answer(tag);
  CHECK(played.reap().size() == 1);
  CHECK(played.ring->unanswered() == 0);
  CHECK(played.pool.free_bytes() == 1 << 20);
}

TEST_CASE("a held buffer is refused to new reads until its release") {
  Played played;
  REQUIRE(played.submit(7) == KELP_OK);
  const std::uint64_t tag = played.take().tag;
  played.answer(tag, KELP_FLAG_BUFFER_HELD, KELP_DEADLINE);
  const auto done = played.reap();
  REQUIRE(done.size() == 1);
  CHECK(done[0].status == KELP_DEADLINE);
  CHECK(done[0].flags == KELP_FLAG_BUFFER_HELD);
  CHECK(played.submit(8) == KELP_BUFFER_BUSY);
  played.answer(tag, kFlagReleased);
  CHECK(played.reap().empty());
  CHECK(played.submit(8) == KELP_OK);
}

TEST_CASE("a held request keeps its place, so answers always find space") {
  Played played;
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(played.submit(tag) == KELP_OK);
  std::vector<std::uint64_t> tags;
  for (int i = 0; i < 4; ++i) tags.push_back(played.take().tag);
  for (const std::uint64_t tag : tags) played.answer(tag, KELP_FLAG_BUFFER_HELD, KELP_DEADLINE);
  for (const std::uint64_t tag : tags) played.answer(tag, kFlagReleased);
  CHECK(played.reap(4).size() == 4);
  CHECK(played.submit(9) != KELP_OK);
  CHECK(played.reap().empty());
  for (std::uint64_t tag = 0; tag < 4; ++tag) CHECK(played.submit(tag) == KELP_OK);
}

TEST_CASE("what the daemon leaves unanswered is answered once, and its buffer withheld") {
  Played played;
  REQUIRE(played.submit(7, 100, 500) == KELP_OK);
  REQUIRE(played.submit(8, 100, 2000) == KELP_OK);
  CHECK(played.ring->earliest_deadline() == 500);
  CHECK(played.reap_overdue(499).empty());
  const auto done = played.reap_overdue(500);
  REQUIRE(done.size() == 1);
  CHECK(done[0].tag == 7);
  CHECK(done[0].status == KELP_DEADLINE);
  CHECK(done[0].flags == KELP_FLAG_BUFFER_HELD);
  CHECK(played.ring->earliest_deadline() == 2000);
  CHECK(played.ring->unanswered() == 1);
  CHECK(played.submit(9) == KELP_BUFFER_BUSY);

  played.answer(played.take().tag);  // late: swallowed, and the buffer is free
  CHECK(played.reap().empty());
  CHECK(played.submit(9) == KELP_OK);
}

TEST_CASE("a request answered here may still be held and released by the daemon") {
  Played played;
  REQUIRE(played.submit(7, 100, 500) == KELP_OK);
  REQUIRE(played.reap_overdue(500).size() == 1);
  const std::uint64_t tag = played.take().tag;
  played.answer(tag, KELP_FLAG_BUFFER_HELD, KELP_DEADLINE);
  CHECK(played.reap().empty());
  CHECK(played.submit(8) == KELP_BUFFER_BUSY);
  played.answer(tag, kFlagReleased);
  CHECK(played.reap().empty());
  CHECK(played.submit(8) == KELP_OK);
}

TEST_CASE("overdue requests beyond the caller's room are answered by the next call") {
  Played played;
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(played.submit(tag, 100, 500) == KELP_OK);
  CHECK(played.reap_overdue(600, 3).size() == 3);
  CHECK(played.ring->earliest_deadline() <= 600);
  CHECK(played.reap_overdue(600, 3).size() == 1);
  CHECK(played.reap_overdue(600, 3).empty());
}

TEST_CASE("orphans give their buffers back when their answers are swallowed") {
  Played played;
  REQUIRE(played.submit(7) == KELP_OK);
  played.ring->orphan_requests();
  CHECK(played.ring->unanswered() == 0);
  CHECK(played.pool.free(played.buffer));
  CHECK(played.pool.free_bytes() < 1 << 20);
  played.answer(played.take().tag);
  played.ring->swallow_completions();
  CHECK(played.pool.free_bytes() == 1 << 20);
}

TEST_CASE("a daemon that lies about what it has read makes the ring full and no more") {
  Played played;
  auto* control = reinterpret_cast<RingControl*>(played.block.get());
  for (int i = 0; i < 4; ++i) {
    REQUIRE(played.submit(1) == KELP_OK);
    played.answer(played.take().tag);
    REQUIRE(played.reap().size() == 1);
  }
  control->submission_head = 0x80000000;
  CHECK(played.submit(1) == KELP_RING_FULL);
}

}  // namespace
