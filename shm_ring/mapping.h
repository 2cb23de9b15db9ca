// A shared mapping of a whole descriptor, unmapped by its owner.
#pragma once

#include <cstddef>
#include <utility>

#include "shm_ring/result.h"

namespace kelp {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    std::swap(base_, other.base_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Mapping();

  /// Maps `bytes` of `fd`, read-write and shared, out of reach of children of fork(). An error if
  /// the file is shorter.
  static Result<Mapping> map_shared(int fd, std::size_t bytes, const std::string& what);

  /// Gives up the range without unmapping it: in a child of fork() it is not ours.
  void forget() noexcept { base_ = nullptr; }

  std::byte* data() const noexcept { return base_; }
  std::size_t size() const noexcept { return bytes_; }
  bool contains(const void* pointer) const noexcept {
    const auto* byte = static_cast<const std::byte*>(pointer);
    return byte >= base_ && byte < base_ + bytes_;
  }

 private:
  Mapping(std::byte* base, std::size_t bytes) noexcept : base_(base), bytes_(bytes) {}
  std::byte* base_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace kelp
