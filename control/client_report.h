// What is told about one attached program. Control thread; the counts are the workers', a moment
// old.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>

namespace kelp {

struct ClientReport {
  std::uint64_t id = 0;  ///< of this attach; never used again by this daemon
  std::string name;      ///< as the program calls itself: printable ASCII, 1..64 bytes, untrusted
  uid_t uid = 0;
  gid_t gid = 0;
  pid_t pid = 0;  ///< 0 across PID namespaces
  std::uint32_t channels = 0;
  std::uint32_t rings = 0;            ///< channels times workers
  std::uint64_t data_bytes = 0;       ///< of its data area
  std::uint64_t page_bytes = 0;       ///< 2 MiB: hugepages
  std::uint64_t in_flight = 0;        ///< requests
  std::uint64_t in_flight_bytes = 0;  ///< of their buffers
  std::chrono::system_clock::time_point since;
  bool leaving = false;  ///< hung up or cut off; its memory goes when nothing is in flight
};

}  // namespace kelp
