// Between a worker and whoever reads what cannot be read from files of this host: requests out,
// answers back, over two queues. Who is at the other end, and by which network path it reads, is
// nothing the worker knows.
//
// A request lends the client's buffer. It comes back with the one answer: until then the op, its
// ring, its segment and so its mapping stay, whatever the client does meanwhile; a deadline that
// passes first is answered by the worker, with the buffer held. kCancel asks for that answer soon.
#pragma once

#include <cstdint>
#include <span>

#include "dataplane/volume/read_request.h"
#include "dataplane/worker/op.h"
#include "dataplane/worker/peer_links.h"
#include "dataplane/worker/spsc_queue.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/file_id.h"
#include "shm_ring/ticks.h"

namespace kelp {

struct RemoteRequest {
  enum class Kind : std::uint8_t { kRead, kStat, kCancel };
  Kind kind = Kind::kRead;
  OpIndex op = kNoOp;  ///< comes back with the answer; of kCancel: the request nobody waits for
  FileId fid;
  std::uint64_t offset_bytes = 0;
  std::span<std::byte> buffer;       ///< the client's memory: written, never trusted
  std::span<const std::byte> hints;  ///< the client's memory, empty or kHintsBytes; see hints.h
  Ticks deadline = 0;
  kelp_status why = KELP_UNAVAILABLE;  ///< what reading it here ended with
};

struct RemoteAnswer {
  OpIndex op = kNoOp;
  ReadOutcome outcome;
  kelp_path path = KELP_PATH_NONE;
  std::uint8_t attempts = 0;
  PeerIndex peer = kNoPeer;  ///< the kelpd beside the server that answered
};

/// Of one worker. Neither queue is ever full. Of an op the answers hold one; the requests three: a
/// cancellation that crossed with the answer, the next request of the op, and its cancellation.
/// Before any more of it comes the reader has answered that, and so taken what came before.
struct RemoteLane {
  RemoteLane(std::size_t ops, Waker& of_worker)
      : requests(3 * ops), answers(ops), worker(of_worker) {}

  SpscQueue<RemoteRequest> requests;
  SpscQueue<RemoteAnswer> answers;
  Waker& worker;
  Waker* reader = nullptr;  ///< set before the worker starts, or takes a step
};

}  // namespace kelp
