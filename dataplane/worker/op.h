// One request on its way through a worker.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "dataplane/transport/link.h"
#include "dataplane/volume/needle_read.h"
#include "dataplane/volume/volume.h"
#include "dataplane/worker/peer_read.h"
#include "dataplane/worker/server_ring.h"
#include "shm_ring/layout.h"
#include "shm_ring/ticks.h"

namespace kelp {

/// Index of an op in its slab.
using OpIndex = std::uint32_t;
inline constexpr OpIndex kNoOp = UINT32_MAX;

enum class OpState : std::uint8_t {
  kFree,
  kRouting,      ///< to be matched with a volume and its index
  kVolumeWait,   ///< the volume's index is being loaded
  kReading,      ///< more slices to read, all on the worker
  kStorageWait,  ///< `read` is the storage thread's until it comes back
  kPrivateWait,  ///< `read.request()` is being looked at by the loader, which answers in `outcome`
  kForwarded,    ///< the worker that owns the volume has it; its answer is to come
  kRemoteWait,   ///< lent to the reader of the worker's RemoteLane
  kPeerWait,     ///< another host's kelpd has been asked, by `peer_read`
};

struct ForwardLink;

inline constexpr std::uint8_t kNoPeersToAsk = 0xff;

/// The worker owns all of it but for what the state lends to another thread.
struct Op {
  /// Nobody waits for the answer any more.
  bool abandoned() const noexcept { return ring != nullptr && ring->severed(); }
  /// The same of who asked from another worker, from another host, or has been answered already:
  /// what is under way for it is given up as soon as it can be.
  bool unwanted() const noexcept {
    if (ring != nullptr) return answered || ring->severed();
    return answered || (asker != nullptr && asker->broken()) ||
           (origin_given_up != nullptr && origin_given_up->load(std::memory_order_relaxed));
  }
  /// The load generator's.
  bool generated() const noexcept {
    return ring == nullptr && link == nullptr && asker == nullptr && !hedges;
  }
  bool held_by_peer() const noexcept { return held_since != 0; }
  /// Nothing is left of the request it was before; who asks, and for what, is to be said.
  void reset() noexcept {
    answered = false;
    restarts = 0;
    went_elsewhere = false;
    cancelled = false;
    tried_here = false;
    remote_attempts = 0;
    path = KELP_PATH_LOCAL;
    ring = nullptr;
    link = nullptr;
    asker = nullptr;
    origin_given_up = nullptr;
    peers_asked = 0;
    hedges = false;
    hedged = false;
    hedge = kNoOp;
    segment = nullptr;
    buffer = {};
    volume = nullptr;
    generation = 0;
  }

  OpState state = OpState::kFree;
  bool answered = false;  ///< completed with KELP_FLAG_BUFFER_HELD; owes only the release
  std::uint8_t restarts = 0;
  bool went_elsewhere = false;  ///< it has been lent to the remote lane, or may not be
  bool cancelled = false;       ///< and asked back from it
  bool tried_here = false;      ///< its bytes were read before it went
  std::uint8_t remote_attempts = 0;
  kelp_path path = KELP_PATH_LOCAL;  ///< the bytes came by it
  OpIndex next = kNoOp;              ///< in the list of its state
  OpIndex previous = kNoOp;
  ServerRing* ring = nullptr;   ///< it came in by; null: through `link`
  ForwardLink* link = nullptr;  ///< from the worker whose op `origin` it is
  OpIndex origin = kNoOp;
  const std::atomic<bool>* origin_given_up = nullptr;  ///< of that op, while it waits
  TargetLink* asker = nullptr;  ///< or, where `link` is null too: the other host's, in `slot`
                                ///< (null as well: the load generator's, in its slot `origin`)
  std::uint16_t slot = 0;
  std::uint8_t peers_asked = 0;  ///< a bit per kelp_path by which a peer has been asked, or may not
  bool hedged = false;           ///< it has had a second attempt
  bool hedges = false;           ///< it is the second attempt of `origin`, in room `slot`
  kelp_path peer_path = KELP_PATH_NONE;        ///< the one that was asked last
  kelp_status peer_status = KELP_UNAVAILABLE;  ///< what asking the peer has come to
  OpIndex hedge = kNoOp;                       ///< its own second attempt, which is under way
  Ticks peer_asked = 0;
  Ticks peer_deadline = 0;           ///< then another path is tried
  Ticks held_since = 0;              ///< let go then, and something may still land in the buffer
  ClientSegment* segment = nullptr;  ///< where `buffer` lies; null: in memory of our own
  Submission submission;
  std::span<std::byte> buffer;
  Ticks taken = 0;     ///< copied out of the ring
  Ticks deadline = 0;  ///< answered by then
  Ticks volume_deadline = 0;
  Volume* volume = nullptr;      ///< pinned while not null
  std::uint64_t generation = 0;  ///< of the volume, when the read began
  std::uint64_t record_offset_bytes = 0;
  NeedleRead read;
  ReadOutcome outcome;  ///< of a private read
  /// Told to who has it (storage thread, loader, the worker it was forwarded to): nobody waits for
  /// it any more. Guards no data.
  std::atomic<bool> given_up{false};
  PeerRead peer_read;
};

/// A list of ops by index, linked through the ops: taking one out of the middle costs nothing.
class OpList {
 public:
  explicit OpList(Op* ops) : ops_(ops) {}

  bool empty() const noexcept { return first_ == kNoOp; }
  OpIndex first() const noexcept { return first_; }
  OpIndex after(OpIndex index) const noexcept { return ops_[index].next; }
  std::uint32_t size() const noexcept { return size_; }

  void push_back(OpIndex index) noexcept {
    ops_[index].next = kNoOp;
    ops_[index].previous = last_;
    (last_ == kNoOp ? first_ : ops_[last_].next) = index;
    last_ = index;
    ++size_;
  }

  void push_front(OpIndex index) noexcept {
    ops_[index].next = first_;
    ops_[index].previous = kNoOp;
    (first_ == kNoOp ? last_ : ops_[first_].previous) = index;
    first_ = index;
    ++size_;
  }

  void remove(OpIndex index) noexcept {
    const Op& op = ops_[index];
    (op.previous == kNoOp ? first_ : ops_[op.previous].next) = op.next;
    (op.next == kNoOp ? last_ : ops_[op.next].previous) = op.previous;
    --size_;
  }

  OpIndex pop_front() noexcept {
    const OpIndex index = first_;
    remove(index);
    return index;
  }

 private:
  Op* ops_;
  OpIndex first_ = kNoOp;
  OpIndex last_ = kNoOp;
  std::uint32_t size_ = 0;
};

}  // namespace kelp
