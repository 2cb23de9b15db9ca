// What every fuzzer here shares: a cursor over the fuzzer's bytes, and an assertion that stays on.
//
// Inputs are read from their front in little-endian order, so that make_corpus.py can write seeds
// without knowing more than the order of the fields. A field past the end reads as zero.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <vector>

/// The entry point each fuzzer defines. Source: LLVM, "libFuzzer".
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace kelp::fuzz {

/// A property of the code under test. Its breach ends the process: libFuzzer keeps the input.
inline void must(bool holds, const char* what) {
  if (holds) [[likely]]
    return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

class Input {
 public:
  Input(const std::uint8_t* data, std::size_t size)
      : rest_(reinterpret_cast<const std::byte*>(data), size) {}

  template <class Unsigned>
  Unsigned take() {
    Unsigned value{};
    const std::size_t count = std::min(sizeof value, rest_.size());
    if (count > 0) std::memcpy(&value, rest_.data(), count);
    rest_ = rest_.subspan(count);
    return value;
  }

  std::span<const std::byte> take_bytes(std::size_t count) {
    const auto taken = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }

  std::span<const std::byte> rest() const { return rest_; }
  bool empty() const { return rest_.empty(); }

 private:
  std::span<const std::byte> rest_;
};

inline std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// A copy with no byte to spare on either side: the sanitizer sees a read beyond its ends.
inline std::vector<std::byte> exact_copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

}  // namespace kelp::fuzz
