// Memory in units of one size, which is given back as a whole.
//
// Units come from chunks that grow with what is in use already: a small volume takes a few KiB, a
// large one takes 2 MiB pages where the kernel has them. Nothing throws. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

namespace kelp {

class UnitPool {
 public:
  /// Units of `unit_bytes`, a multiple of 64, aligned to 64. Refuses more than `most_bytes` in all.
  UnitPool(std::size_t unit_bytes, std::uint64_t most_bytes) noexcept
      : unit_bytes_(unit_bytes), most_bytes_(most_bytes) {}
  ~UnitPool();
  UnitPool(UnitPool&& other) noexcept
      : unit_bytes_(other.unit_bytes_),
        most_bytes_(other.most_bytes_),
        expected_bytes_(std::exchange(other.expected_bytes_, 0)),
        bytes_(std::exchange(other.bytes_, 0)),
        chunks_(std::exchange(other.chunks_, nullptr)),
        next_(std::exchange(other.next_, nullptr)),
        left_(std::exchange(other.left_, 0)),
        free_(std::exchange(other.free_, nullptr)) {}
  UnitPool& operator=(UnitPool&& other) noexcept {
    std::swap(unit_bytes_, other.unit_bytes_);
    std::swap(most_bytes_, other.most_bytes_);
    std::swap(expected_bytes_, other.expected_bytes_);
    std::swap(bytes_, other.bytes_);
    std::swap(chunks_, other.chunks_);
    std::swap(next_, other.next_);
    std::swap(left_, other.left_);
    std::swap(free_, other.free_);
    return *this;
  }

  /// A unit of unspecified content, or nullptr: there is no memory, or no more is allowed.
  void* take() noexcept;
  /// Takes back a unit that take() gave.
  void give_back(void* unit) noexcept;

  /// Says that about so much will be taken: if that is a lot, large pages are used from the start.
  void expect(std::uint64_t bytes) noexcept { expected_bytes_ = bytes; }

  /// Address space taken so far; the last chunk's tail is not touched yet.
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  struct Chunk;
  bool add_chunk() noexcept;

  std::size_t unit_bytes_;
  std::uint64_t most_bytes_;
  std::uint64_t expected_bytes_ = 0;
  std::uint64_t bytes_ = 0;
  Chunk* chunks_ = nullptr;
  std::byte* next_ = nullptr;  // the first unit never given out
  std::size_t left_ = 0;       // units from there to the end of the newest chunk
  void* free_ = nullptr;       // given back, linked through their first word
};

}  // namespace kelp
