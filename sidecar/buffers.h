// Slabs of the data area that reads are answered into and sent from. The sidecar's thread only.
//
//   slab:  | data, 64 KiB, 256 KiB or 1 MiB | side page: stat 2 KiB, hints 1 KiB |
//
// Their number is fixed, so memory is bounded whatever clients do.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "shm_ring/kelp.h"

namespace kelp::sidecar {

constexpr std::uint32_t kStatBytes = 2048;
constexpr std::uint32_t kSidePageBytes = 4096;
static_assert(kStatBytes + KELP_HINTS_BYTES <= kSidePageBytes);

struct Slab {
  std::byte* data = nullptr;
  std::uint32_t bytes = 0;
  std::uint8_t kind = 0;
  bool held = false;  ///< a read that timed out may still write into it

  void* stat() const noexcept { return data + bytes; }
  void* hints() const noexcept { return data + bytes + kStatBytes; }
};

class Buffers {
 public:
  struct Kind {
    std::uint32_t bytes;
    std::uint32_t count;
  };
  static constexpr std::array<Kind, 3> kKinds = {{{64 << 10, 128}, {256 << 10, 64}, {1 << 20, 24}}};
  static constexpr std::uint32_t kSmallest = kKinds.front().bytes;
  static constexpr std::uint32_t kMiddle = kKinds[1].bytes;
  static constexpr std::uint32_t kLargest = kKinds.back().bytes;

  /// Bytes of data area that all of them take.
  static constexpr std::uint64_t total_bytes() {
    std::uint64_t sum = 0;
    for (const Kind& kind : kKinds) {
      sum += std::uint64_t{kind.count} * (kind.bytes + kSidePageBytes);
    }
    return sum;
  }

  explicit Buffers(kelp_connection* connection) : connection_(connection) {}

  /// One of at least `bytes`, at most kLargest; null: all are in use.
  Slab* take(std::uint32_t bytes);
  void give(Slab* slab);

 private:
  Slab* make(std::uint8_t kind);

  kelp_connection* connection_;
  std::vector<std::unique_ptr<Slab>> all_;
  std::array<std::vector<Slab*>, kKinds.size()> free_;
  std::array<std::uint32_t, kKinds.size()> made_{};
};

}  // namespace kelp::sidecar
