// What a worker counts: written by that worker alone, read by anyone at any time.
#pragma once

#include <array>

#include "shm_ring/counter.h"
#include "shm_ring/histogram.h"

namespace kelp {

struct WorkerCounters {
  Counter polls;         ///< turns of the loop
  Counter idle_polls;    ///< turns that found nothing to do
  Counter sleeps;        ///< times the worker slept
  Counter client_wakes;  ///< system calls that woke a client
  Counter reads;         ///< requests taken, by operation
  Counter stats;
  Counter nops;
  Counter forwarded;                    ///< of those: handed to the worker that owns the volume
  Counter remote;                       ///< handed to whoever reads from other hosts
  Counter remote_bytes;                 ///< of `bytes`: those that came that way
  Counter peer_reads;                   ///< asked of the kelpd of another host
  Counter peer_requests;                ///< taken of gateways of other hosts
  Counter peer_late;                    ///< answers of those that nobody waited for any more
  Counter hedges;                       ///< of peer_reads: tried a second way, too
  Counter hedges_won;                   ///< of those: answered by it
  Counter crc_errors;                   ///< answers whose bytes did not fit their checksum
  Counter bytes;                        ///< payload bytes delivered
  std::array<Counter, 32> completions;  ///< by kelp_status
  Counter storage_inline;  ///< reads served from the page cache without leaving the worker
  Counter cache_hits;      ///< reads served from needles kept in memory
  Counter cache_kept;      ///< needles put there
  Counter storage_waits;   ///< reads handed to the storage thread, since they would have waited
  Counter private_inline;  ///< needles inflated, or checked again, on the worker
  Counter private_handed_over;  ///< needles inflated, or checked again, by the loader
  /// Reads that storage thread or loader had, when nobody waited for them any more.
  Counter given_up;
  Counter restarts;           ///< reads begun again because the volume had changed under them
  Counter volume_waits;       ///< reads that waited for an index to be loaded
  Counter revocations;        ///< closes of watched files: their volume is to be attested again
  Counter unattested_reads;   ///< reads sent away since no volume server vouched for the volume
  Counter buffers_held;       ///< deadlines that passed while bytes could still land
  Counter buffers_released;   ///< held buffers let go
  Counter rings_condemned;    ///< rings cut off, for whatever reason
  Counter faults_slept_over;  ///< times a client's memory made the worker sleep in the kernel
  Counter clients_condemned;  ///< clients cut off for taking pages out of their memory
};

/// Time from taking a request to publishing its completion.
struct WorkerLatencies {
  Histogram read;
  Histogram stat;
  Histogram nop;
  Histogram remote;  ///< of reads and stats, those that were handed on; not among the others
};

}  // namespace kelp
