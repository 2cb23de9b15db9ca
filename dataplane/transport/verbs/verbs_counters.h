// What went through one RDMA connection. Written by whoever has it; read by anyone.
#pragma once

#include "shm_ring/counter.h"

namespace kelp {

struct VerbsCounters {
  Counter doorbells;  ///< calls that posted sends
  Counter posted;     ///< sends and writes
  Counter signalled;  ///< of those
};

}  // namespace kelp
