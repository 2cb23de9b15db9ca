// A volume of plain needles, for tests that care about what becomes of a read and not about
// formats.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <utility>
#include <vector>

#include "shm_ring/kelp.h"
#include "support/volume_writer.h"

namespace kelp::test {

/// Bytes that differ from needle to needle and from place to place.
inline std::vector<std::byte> pattern(std::size_t length, std::uint64_t seed) {
  std::vector<std::byte> bytes(length);
  std::uint64_t state = seed * 0x9e3779b97f4a7c15 + 1;
  for (std::byte& byte : bytes) {
    state = state * 6364136223846793005 + 1442695040888963407;
    byte = static_cast<std::byte>(state >> 56);
  }
  return bytes;
}

class SmallVolume : public VolumeWriter {
 public:
  SmallVolume(const std::filesystem::path& dir, std::uint32_t id) : VolumeWriter(dir, {.id = id}) {}

  kelp_fid put(std::uint64_t needle, std::uint32_t cookie, std::vector<std::byte> data,
               std::uint8_t flags = 0) {
    VolumeWriter::put(
        {.id = needle, .cookie = cookie, .data = std::move(data), .extra_flags = flags});
    return {options().id, cookie, needle};
  }
};

}  // namespace kelp::test
