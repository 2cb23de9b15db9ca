// Between two workers: a request that came in through a ring of one for a volume the other owns.
//
// A volume belongs to worker `id mod workers`, and libkelp submits there; whoever submits elsewhere
// is served all the same. The worker of the ring keeps the op, its deadline and its completion; the
// owner of the volume reads into the client's buffer and sends the outcome back, once, when nothing
// writes there any more. So the buffer and its mapping live as long as the first op does.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/volume/needle_read.h"
#include "dataplane/worker/op.h"
#include "dataplane/worker/spsc_queue.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/layout.h"
#include "shm_ring/ticks.h"

namespace kelp {

struct ForwardedRequest {
  OpIndex origin = kNoOp;  ///< the sender's op; comes back with the answer
  Submission submission{};
  std::span<std::byte> buffer;
  ClientSegment* segment = nullptr;
  Ticks deadline = 0;
  const std::atomic<bool>* given_up = nullptr;  ///< the sender's op's: there until the answer is
};

struct ForwardedAnswer {
  OpIndex origin = kNoOp;
  ReadOutcome outcome;
  kelp_path path = KELP_PATH_NONE;
};

/// One way from a worker to another, and back. Either queue holds all ops of its sender: neither is
/// ever full.
struct ForwardLink {
  ForwardLink(std::size_t sender_ops, Waker& from, Waker& to)
      : requests(sender_ops), answers(sender_ops), sender(from), owner(to) {}

  SpscQueue<ForwardedRequest> requests;
  SpscQueue<ForwardedAnswer> answers;
  Waker& sender;
  Waker& owner;
};

}  // namespace kelp
