#include "shm_ring/ring.h"

#include <doctest/doctest.h>

#include <thread>
#include <vector>

#include "shm_ring/layout.h"
#include "shm_ring/ticks.h"

namespace {

using namespace kelp;

struct Rings {
  explicit Rings(std::uint32_t capacity, std::uint32_t first = 0)
      : slots(capacity * kEntryWords<Submission>),
        head(first),
        producer(slots.data(), capacity, &head, first),
        consumer(slots.data(), capacity, &head, first) {}

  bool push(std::uint64_t tag) {
    if (!producer.has_space()) return false;
    Submission entry{};
    entry.tag = tag;
    entry.extra = ~tag;
    producer.push(entry);
    return true;
  }
  void mark(std::uint32_t slot, std::uint32_t sequence) {
    slots[slot * kEntryWords<Submission>] = sequence;
  }

  std::vector<std::uint64_t> slots;
  std::uint32_t head;
  RingProducer<Submission> producer;
  RingConsumer<Submission> consumer;
};

TEST_CASE("a full ring refuses one more entry and keeps the ones it holds") {
  Rings rings(4);
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(rings.push(tag));
  CHECK_FALSE(rings.push(4));
  for (std::uint64_t tag = 0; tag < 4; ++tag) CHECK(rings.consumer.pop()->tag == tag);
  CHECK_FALSE(rings.consumer.pop());
}

TEST_CASE("a slot is free again only when the consumer has published its head") {
  Rings rings(4);
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(rings.push(tag));
  rings.consumer.pop();
  rings.consumer.pop();
  CHECK_FALSE(rings.push(4));
  rings.consumer.publish_head();
  CHECK(rings.push(4));
  CHECK(rings.push(5));
  CHECK_FALSE(rings.push(6));
  for (std::uint64_t tag = 2; tag < 6; ++tag) CHECK(rings.consumer.pop()->tag == tag);
}

TEST_CASE("indices wrap at 2^32 without losing, repeating or inventing an entry") {
  Rings rings(4, UINT32_MAX - 9);
  std::uint64_t pushed = 0;
  std::uint64_t popped = 0;
  for (int round = 0; round < 12; ++round) {
    while (rings.push(pushed)) ++pushed;
    CHECK(pushed - popped == 4);
    for (int i = 0; i < 3; ++i) {
      const auto entry = rings.consumer.pop();
      REQUIRE(entry);
      CHECK(entry->tag == popped);
      CHECK(entry->extra == ~popped++);
    }
    rings.consumer.publish_head();
  }
  while (const auto entry = rings.consumer.pop()) CHECK(entry->tag == popped++);
  CHECK(pushed == popped);
  CHECK(rings.consumer.head() == rings.producer.tail());
  CHECK(rings.consumer.head() < 100);  // it did wrap
}

TEST_CASE("memory of zeroes holds no entry") {
  Rings rings(4);
  CHECK_FALSE(rings.consumer.ready());
  CHECK_FALSE(rings.consumer.pop());
}

TEST_CASE("a lap mark of another lap, another slot or nonsense is no entry") {
  Rings rings(4, 100);
  for (const std::uint32_t sequence : {0U, 1U, 97U, 100U, 102U, 105U, 0x80000065U, UINT32_MAX}) {
    CAPTURE(sequence);
    rings.mark(0, sequence);
    CHECK_FALSE(rings.consumer.ready());
    CHECK_FALSE(rings.consumer.pop());
  }
  rings.mark(0, 101);
  CHECK(rings.consumer.ready());
  CHECK(rings.consumer.pop()->sequence == 101);
}

TEST_CASE("only the low half of the first word is the lap mark") {
  Rings rings(4);
  Submission entry{};
  entry.op = OpCode::kNop;
  entry.flags = 0xffff;
  entry.reserved = 0xff;
  rings.producer.push(entry);
  const auto out = rings.consumer.pop();
  REQUIRE(out);
  CHECK(out->op == OpCode::kNop);
  CHECK(out->flags == 0xffff);
}

TEST_CASE("a consumer that claims more than it was given makes the ring full, never overrun") {
  Rings rings(4);
  for (std::uint64_t tag = 0; tag < 4; ++tag) REQUIRE(rings.push(tag));
  for (const std::uint32_t lie : {5U, 1000U, 0x80000000U, UINT32_MAX}) {
    CAPTURE(lie);
    rings.head = lie;
    CHECK_FALSE(rings.producer.has_space());
    CHECK(rings.producer.unconsumed() > rings.producer.capacity());
  }
}

/// Looks again for a while before it gives the CPU away: to yield costs a turn of whoever shares
/// it.
class Patience {
 public:
  void wait() {
    if (++looks_ % 1000 == 0) {
      std::this_thread::yield();
    } else {
      kelp::cpu_relax();
    }
  }

 private:
  std::uint64_t looks_ = 0;
};

TEST_CASE("two threads exchange every entry once, whole and in order") {
  constexpr std::uint64_t kEntries = 200'000;
  for (const std::uint32_t capacity : {4U, 64U}) {
    CAPTURE(capacity);
    Rings rings(capacity, UINT32_MAX - 50'000);
    std::thread producer([&] {
      Patience patience;
      for (std::uint64_t tag = 0; tag < kEntries;) {
        if (rings.push(tag)) {
          ++tag;
        } else {
          patience.wait();
        }
      }
    });
    std::uint64_t seen = 0;
    std::uint64_t wrong = 0;
    Patience patience;
    while (seen < kEntries) {
      std::uint32_t batch = 0;
      while (batch < 3) {
        const auto entry = rings.consumer.pop();
        if (!entry) break;
        if (entry->tag != seen || entry->extra != ~seen) ++wrong;
        ++seen;
        ++batch;
      }
      rings.consumer.publish_head();
      if (batch == 0) patience.wait();
    }
    producer.join();
    CHECK(wrong == 0);
    CHECK_FALSE(rings.consumer.pop());
  }
}

}  // namespace
