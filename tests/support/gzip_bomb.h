// Gzip streams that inflate to much more than they look.
#pragma once

#include <cstddef>
#include <vector>

#include "support/gzip_writer.h"

namespace kelp::test {

/// `members` members of 4 MiB of zeroes each, about 4 KiB apiece.
inline std::vector<std::byte> gzip_bomb(std::size_t members) {
  const std::vector<std::byte> zeroes(std::size_t{4} << 20);
  const std::vector<std::byte> member = gzip_member(zeroes, 9);
  std::vector<std::byte> bomb;
  for (std::size_t i = 0; i < members; ++i) bomb.insert(bomb.end(), member.begin(), member.end());
  return bomb;
}

}  // namespace kelp::test
