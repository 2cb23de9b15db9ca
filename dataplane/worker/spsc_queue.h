// Messages from one thread of the daemon to another: fixed size, no lock, no allocation.
// One producer thread, one consumer thread.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <optional>
#include <utility>

namespace kelp {

template <class Message>
class SpscQueue {
 public:
  /// Holds at least `capacity` messages; rounded up to a power of two.
  explicit SpscQueue(std::size_t capacity)
      : mask_(std::bit_ceil(capacity) - 1), slots_(std::make_unique<Message[]>(mask_ + 1)) {}

  /// False if it is full; `message` is then untouched.
  bool try_push(Message&& message) noexcept {
    const std::size_t tail = tail_.load(std::memory_order_relaxed);  // relaxed: only we write it
    // Acquire pairs with the release in try_pop(): the slot has been emptied.
    if (tail - head_.load(std::memory_order_acquire) > mask_) return false;
    slots_[tail & mask_] = std::move(message);
    // Release pairs with the acquire in try_pop(): who sees the tail sees the message.
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  std::optional<Message> try_pop() noexcept {
    const std::size_t head = head_.load(std::memory_order_relaxed);  // relaxed: only we write it
    if (head == tail_.load(std::memory_order_acquire)) return std::nullopt;
    std::optional<Message> message(std::move(slots_[head & mask_]));
    head_.store(head + 1, std::memory_order_release);
    return message;
  }

  bool empty() const noexcept {
    return head_.load(std::memory_order_relaxed) == tail_.load(std::memory_order_acquire);
  }

 private:
  const std::size_t mask_;
  std::unique_ptr<Message[]> slots_;
  alignas(128) std::atomic<std::size_t> head_{0};
  alignas(128) std::atomic<std::size_t> tail_{0};
};

}  // namespace kelp
