// One reliable connection of an RDMA adapter: its queue pair, the queue of what completes, and the
// memory of frames. Knows nothing of requests; its user is a link, or the handshake before it.
//
// The control thread makes it, talks through it until both sides trust each other, and gives it to
// a worker. From then on the worker posts and polls, and control disconnects and destroys the queue
// pair. They tell each other by ask_end() and gone(): once the queue pair is gone nothing lands in
// memory any more, whatever the other side does.
//
// The completion queue is the connection's own: it holds exactly what may be posted, so it cannot
// overflow, which would lose completions in silence.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/memory/arena.h"
#include "dataplane/transport/verbs/hold_limit.h"
#include "dataplane/transport/verbs/rdma_domain.h"
#include "dataplane/transport/verbs/verbs_counters.h"
#include "dataplane/transport/zeroed_pages.h"
#include "dataplane/wire/frames.h"
#include "shm_ring/result.h"
#include "shm_ring/ticks.h"

namespace kelp {

/// What a target reads into and writes from; of one worker and one device.
struct RegisteredArena {
  RegisteredArena(std::size_t bytes) : pages(bytes), blocks(pages.bytes()) {}
  ZeroedPages pages;
  Arena blocks;
  RegisteredMemory region;  // before the pages go
};

class VerbsEndpoint {
 public:
  enum class Role : std::uint8_t { kGateway, kTarget };
  /// A send, or the payload that goes ahead of one.
  struct Arrival {
    bool immediate = false;  ///< a payload that came with `value`, and no frame
    std::uint32_t value = 0;
    std::uint32_t bytes = 0;
    std::span<const std::byte> frame;
  };
  class User {
   public:
    /// False: the peer broke the protocol.
    virtual bool arrived(const Arrival& arrival) = 0;

   protected:
    ~User() = default;
  };

  // ---- the control thread

  struct Options {
    Role role = Role::kTarget;
    std::uint16_t slots = 1;
    bool mlx5 = true;   ///< the ways of a ConnectX, where it is one
    int end_bell = -1;  ///< an eventfd that ask_end() rings, and that outlives it; -1: none
  };
  /// On `id`, which knows its device. Receives are posted.
  static Result<std::shared_ptr<VerbsEndpoint>> create(rdma_cm_id* id,
                                                       std::shared_ptr<RdmaDomain> domain,
                                                       const Options& options);
  /// The queue pair is gone.
  ~VerbsEndpoint();
  /// Somebody wants the queue pair destroyed.
  bool end_asked() const noexcept { return end_asked_.load(std::memory_order_acquire); }
  /// It is: see above.
  void set_gone() noexcept { gone_.store(true, std::memory_order_release); }
  /// The other side has hung up.
  void set_hung_up() noexcept { hung_up_.store(true, std::memory_order_release); }

  // ---- who has it

  /// Queues a frame. False: more than may be queued, which breaks the connection.
  bool post_frame(std::span<const std::byte> frame) noexcept;
  /// The bytes of an answer, from a block of `arena` that goes back to it once they are gone.
  struct Write {
    std::span<const std::byte> bytes;
    RegisteredArena* arena = nullptr;
    std::uint64_t remote_address = 0;
    std::uint32_t remote_key = 0;
    bool immediate = false;  ///< is an answer by itself: with `value`
    std::uint32_t value = 0;
  };
  bool post_write(const Write& write) noexcept;
  /// Posts what is queued, all of it as far as there is room. `at_rest`: nothing may follow for
  /// long, so the end of all of it is to be told, or blocks would stay lent until something does.
  void flush(bool at_rest = false) noexcept;
  /// The same, once it is worth a doorbell, or has waited for that as long as it may: more is
  /// coming. True: something is held back.
  bool flush_worthwhile(const HoldLimit& limit) noexcept;
  /// Takes what has completed; how much that was.
  unsigned poll(User& user) noexcept;

  /// Readable when something completes after arm().
  int channel_fd() const noexcept { return channel_->fd; }
  /// What completes from now on makes channel_fd() readable. Poll once more before sleeping.
  void arm() noexcept;

  /// Of no use any more; control is to destroy the queue pair, by and by.
  void ask_end(const char* why) noexcept;
  bool broken() const noexcept { return why_ != nullptr; }
  const char* why_broken() const noexcept { return why_ == nullptr ? "" : why_; }
  bool hung_up() const noexcept { return hung_up_.load(std::memory_order_acquire); }
  bool gone() const noexcept { return gone_.load(std::memory_order_acquire); }
  /// After gone(): what was posted will not be read any more.
  void give_back_all() noexcept;

  std::uint32_t queued() const noexcept { return static_cast<std::uint32_t>(queued_ - flushed_); }
  const RdmaDomain& domain() const noexcept { return *domain_; }
  const std::shared_ptr<VerbsCounters>& counters() const noexcept { return counters_; }

 private:
  struct Outgoing {
    std::uint32_t frame_bytes = 0;  // 0: it is a write
    Write write;
  };
  struct Landed {
    bool immediate;
    std::uint32_t value;
    std::uint32_t bytes;
  };
  struct DestroyChannel {
    void operator()(ibv_comp_channel* channel) const noexcept {
      ::ibv_destroy_comp_channel(channel);
    }
  };
  struct DestroyQueue {
    void operator()(ibv_cq* queue) const noexcept { ::ibv_destroy_cq(queue); }
  };
  static constexpr int kBatch = 32;
  static constexpr std::uint64_t kSend = std::uint64_t{1} << 63;  // of wr_id

  VerbsEndpoint(std::shared_ptr<RdmaDomain> domain, const Options& options);
  Result<void> set_up(rdma_cm_id* id, const Options& options);
  Result<void> make_queue_pair(rdma_cm_id* id, bool mlx5);
  bool post_receives(std::span<const std::uint32_t> which) noexcept;
  std::byte* frame_at(std::uint64_t sequence) noexcept {
    return frames_.data() + (sequence % outgoing_.size()) * wire::kMostFrameBytes;
  }
  Outgoing* next_outgoing() noexcept;
  bool post_batch(bool at_rest) noexcept;
  void take_completion(const ibv_wc& wc) noexcept;

  const std::shared_ptr<RdmaDomain> domain_;
  const int end_bell_;
  const std::uint32_t receives_;       // posted at any time
  const std::uint32_t receive_bytes_;  // each
  const std::uint32_t sends_;          // posted at once, at most
  ZeroedPages memory_;                 // of frames: received, then sent
  RegisteredMemory region_;
  std::span<std::byte> received_;
  std::span<std::byte> frames_;
  std::unique_ptr<ibv_comp_channel, DestroyChannel> channel_;
  std::unique_ptr<ibv_cq, DestroyQueue> completions_;
  ibv_qp* queue_pair_ = nullptr;  // the id's
  std::uint32_t inline_bytes_ = 0;
  unsigned unacknowledged_ = 0;

  std::vector<Outgoing> outgoing_;  // a ring: [completed_, queued_)
  std::uint64_t completed_ = 0;     // all before it are done with
  std::uint64_t flushed_ = 0;       // posted
  std::uint64_t queued_ = 0;
  std::uint64_t last_signalled_ = 0;  // one behind it
  Ticks held_since_ = 0;              // 0: nothing is

  std::array<Landed, kBatch> landed_{};
  std::vector<std::byte> landed_frames_;
  const char* why_ = nullptr;
  std::shared_ptr<VerbsCounters> counters_ = std::make_shared<VerbsCounters>();
  std::atomic<bool> end_asked_{false};
  std::atomic<bool> hung_up_{false};
  std::atomic<bool> gone_{false};
};

}  // namespace kelp
