// What the sidecar counts. Written by its thread only; any thread may look.
#pragma once

#include <array>

#include "shm_ring/counter.h"

namespace kelp::sidecar {

struct Counters {
  static constexpr std::size_t kPaths = 6;  // kelp_path

  Counter requests;                     ///< heads of requests that were taken in
  Counter refused;                      ///< of those, answered with 4xx
  Counter failed;                       ///< of those, answered with 5xx
  Counter broken_off;                   ///< answers that ended before their Content-Length
  Counter connections;                  ///< accepted
  Counter shed;                         ///< closed because others needed what they held
  Counter timed_out;                    ///< closed because they were silent or slow
  Counter temp_offered;                 ///< answers of /read that named a temporary file
  Counter temp_refused;                 ///< those that would have, had there been room for it
  std::array<Counter, kPaths> reads{};  ///< of /read and /rdma/read, answered with bytes, by path
  std::array<Counter, kPaths> bytes{};
};

}  // namespace kelp::sidecar
