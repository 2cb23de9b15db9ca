// The single-producer single-consumer ring both directions use.
//
// The producer marks a slot full by storing its lap mark (index + 1) in the slot's first word,
// after the rest of the entry. The consumer copies the entry out once, and publishes how far it
// has read (its head, in its own line) once per batch: 25 % faster than marking slots empty.
// Indices are 32 bits, run freely and wrap; only differences are ever compared.
//
// Entries are moved as 64-bit words with relaxed atomics, so a peer that writes at the wrong time
// gives us a torn entry, never undefined behaviour. What comes out is untrusted.
#pragma once

#include <bit>
#include <cassert>
#include <cstdint>
#include <optional>

#include "shm_ring/entry_words.h"

namespace kelp {

/// Producer's end. Owns nothing: slots and head live in shared memory.
template <class Entry>
class RingProducer {
 public:
  RingProducer() = default;
  /// `capacity` is a power of two; `consumer_head` is the line the consumer publishes to. Both ends
  /// start at index `first`: 0 but in tests, which have no time to reach 2^32.
  RingProducer(std::uint64_t* slots, std::uint32_t capacity, const std::uint32_t* consumer_head,
               std::uint32_t first = 0)
      : slots_(slots),
        mask_(capacity - 1),
        tail_(first),
        head_seen_(first),
        consumer_head_(consumer_head) {
    assert(std::has_single_bit(capacity));
  }

  std::uint32_t capacity() const noexcept { return mask_ + 1; }
  std::uint32_t tail() const noexcept { return tail_; }

  /// Entries written and not yet consumed, as the consumer last told; above capacity() the
  /// consumer lies.
  std::uint32_t unconsumed() noexcept {
    // A1 pairs with R1 in RingConsumer::publish_head: the consumer has finished reading every slot
    // below this head, so those slots may be overwritten.
    return tail_ - __atomic_load_n(consumer_head_, __ATOMIC_ACQUIRE);
  }

  bool has_space() noexcept {
    if (tail_ - head_seen_ <= mask_) return true;
    head_seen_ = tail_ - unconsumed();
    return tail_ - head_seen_ <= mask_;
  }

  /// Writes and publishes one entry. The caller has seen has_space().
  void push(const Entry& entry) noexcept {
    std::uint64_t* slot = slots_ + static_cast<std::size_t>(tail_ & mask_) * kEntryWords<Entry>;
    ++tail_;
    const EntryWords<Entry> words = to_words(entry);
    // relaxed: ordered by the release below.
#pragma GCC unroll 8
    for (std::size_t i = 1; i < words.size(); ++i) {
      __atomic_store_n(slot + i, words[i], __ATOMIC_RELAXED);
    }
    // R2 pairs with A2 in RingConsumer::pop: whoever sees this lap mark sees the entry.
    __atomic_store_n(slot, two_halves(tail_, high_half(words[0])), __ATOMIC_RELEASE);
  }

 private:
  std::uint64_t* slots_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t tail_ = 0;
  std::uint32_t head_seen_ = 0;
  const std::uint32_t* consumer_head_ = nullptr;
};

/// Consumer's end.
template <class Entry>
class RingConsumer {
 public:
  RingConsumer() = default;
  RingConsumer(const std::uint64_t* slots, std::uint32_t capacity, std::uint32_t* head_line,
               std::uint32_t first = 0)
      : slots_(slots), mask_(capacity - 1), head_(first), published_(first), head_line_(head_line) {
    assert(std::has_single_bit(capacity));
  }

  std::uint32_t head() const noexcept { return head_; }

  bool ready() const noexcept { return mark_matches(load_first_word()); }

  /// The next entry, copied out once; nothing if the producer has not published one.
  std::optional<Entry> pop() noexcept {
    EntryWords<Entry> words;
    if (!pop_words(words)) return std::nullopt;
    return from_words<Entry>(words);
  }

  /// The same, not yet taken apart; false if there is none.
  bool pop_words(EntryWords<Entry>& words) noexcept {
    words[0] = load_first_word();
    if (!mark_matches(words[0])) return false;
    const std::uint64_t* slot = slot_at_head();
    // relaxed: ordered by the acquire in load_first_word().
#pragma GCC unroll 8
    for (std::size_t i = 1; i < words.size(); ++i) {
      words[i] = __atomic_load_n(slot + i, __ATOMIC_RELAXED);
    }
    ++head_;
    return true;
  }

  /// Tells the producer how far we have read; once per batch.
  void publish_head() noexcept {
    if (published_ == head_) return;
    published_ = head_;
    // R1 pairs with A1 in RingProducer::unconsumed: our reads of the slots are over.
    __atomic_store_n(head_line_, head_, __ATOMIC_RELEASE);
  }

 private:
  const std::uint64_t* slot_at_head() const noexcept {
    return slots_ + static_cast<std::size_t>(head_ & mask_) * kEntryWords<Entry>;
  }
  std::uint64_t load_first_word() const noexcept {
    // A2 pairs with R2 in RingProducer::push: the rest of the entry is visible too.
    return __atomic_load_n(slot_at_head(), __ATOMIC_ACQUIRE);
  }
  bool mark_matches(std::uint64_t first_word) const noexcept {
    return low_half(first_word) == head_ + 1;
  }

  const std::uint64_t* slots_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t head_ = 0;
  std::uint32_t published_ = 0;
  std::uint32_t* head_line_ = nullptr;
};

}  // namespace kelp
