// What the machine has of hugepages.
#pragma once

#include <cstdint>
#include <fstream>
#include <string>

namespace kelp::test {

/// Pages of 2 MiB nobody uses or has reserved.
inline std::uint64_t free_hugepages() {
  const auto number = [](const char* name) {
    std::ifstream file(std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + name);
    std::uint64_t value = 0;
    file >> value;
    return value;
  };
  const std::uint64_t free = number("free_hugepages");
  const std::uint64_t reserved = number("resv_hugepages");
  return free > reserved ? free - reserved : 0;
}

}  // namespace kelp::test
