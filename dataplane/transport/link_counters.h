// What came of a link: written by its worker alone, read by anyone at any time. Outlives the link
// for whoever holds it.
#pragma once

#include <atomic>
#include <cstdint>

#include "shm_ring/counter.h"
#include "shm_ring/histogram.h"

namespace kelp {

struct LinkCounters {
  Counter answers;  ///< of a gateway's end: taken in time; of a target's: given
  Counter ok;       ///< of those, with KELP_OK
  Counter bytes;    ///< of payload, in those
  Counter late;     ///< at a gateway's end: answers that nobody waited for any more
  CoarseHistogram
      latency;  ///< from asking to the answer; at a target's end from hearing to answering
  std::atomic<std::uint16_t> in_flight{0};  ///< requests, a millisecond ago at most
};

}  // namespace kelp
