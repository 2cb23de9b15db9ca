// The poll-mode worker: takes submissions from client rings, reads needles, writes completions.
//
// Run to completion, one thread, which owns every ring, op and volume it was given: no lock, no
// allocation, no exception, no log line per request. Others talk to it by messages and read its
// counters. worker.cc sets up and sleeps; worker_poll.cc is the loop and a request's start and end;
// worker_read.cc is what lies between; worker_forward.cc hands requests to
// other workers, worker_peers.cc to kelpds of other hosts, worker_remote.cc to who reads from there
// in other ways, worker_hedge.cc to both; worker_target.cc takes those of other hosts;
// worker_load.cc makes its own.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "dataplane/transport/bell.h"
#include "dataplane/volume/close_watch.h"
#include "dataplane/volume/private_read.h"
#include "dataplane/worker/client.h"
#include "dataplane/worker/counters.h"
#include "dataplane/worker/forwarding.h"
#include "dataplane/worker/hedge_rooms.h"
#include "dataplane/worker/load_generator.h"
#include "dataplane/worker/loader.h"
#include "dataplane/worker/needle_cache.h"
#include "dataplane/worker/op.h"
#include "dataplane/worker/peer_links.h"
#include "dataplane/worker/remote_lane.h"
#include "dataplane/worker/server_ring.h"
#include "dataplane/worker/spsc_queue.h"
#include "dataplane/worker/storage_thread.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/result.h"

namespace kelp {

struct WorkerOptions {
  std::uint32_t index = 0;
  std::uint32_t workers = 1;             ///< of the daemon; see owner_of()
  int cpu = -1;                          ///< pinned there; -1: the scheduler's choice
  bool always_poll = false;              ///< never sleeps: a whole CPU, for the last microsecond
  std::uint32_t spin_us = 50;            ///< polls this long after the last work before it sleeps
  std::uint32_t ops = 4096;              ///< requests in work at once
  std::uint32_t client_requests = 1024;  ///< of one client, in work at once
  /// Of one client: no request is taken while those in work have buffers of so many bytes.
  std::uint64_t client_bytes = 256 << 20;
  std::uint64_t max_timeout_us = 60'000'000;
  std::uint64_t reload_wait_us = 1'000'000;  ///< a read waits this long for an index to load
  std::uint64_t inline_inflate_bytes =
      262'144;                       ///< inflated on the worker; more goes to the loader
  std::uint64_t cache_bytes = 0;     ///< of small needles kept in memory; 0: none are
  std::uint64_t hedge_after_us = 0;  ///< a peer lets a read wait so long: a second way; 0: never
  bool remote = false;               ///< what cannot be read here goes to remote_lane()
  bool trust_local_clients = false;  ///< no token asked for where the volume server wants one
  LoaderConfig loader;
};

/// Control to worker.
struct WorkerCommand {
  enum class Kind : std::uint8_t {
    kAddRing,     ///< `ring` is the worker's from now on
    kRemoveRing,  ///< take nothing more from `ring`; report when nothing of it is in flight
    kDrain,       ///< finish what is in flight, take nothing new
    kGenerate,    ///< work on `load` until it has finished; there is no other one
  };
  Kind kind = Kind::kDrain;
  ServerRing* ring = nullptr;
  LoadGenerator* load = nullptr;
};

/// Worker to control.
struct WorkerReport {
  enum class Kind : std::uint8_t {
    kRingRemoved,  ///< the worker has let go of `ring`
    kDrained,      ///< nothing is in flight
    kRingBroken,   ///< `ring`'s client broke the protocol; it is severed already
  };
  Kind kind = Kind::kDrained;
  ServerRing* ring = nullptr;
};

class Worker final : private GatewayLink::User, private TargetLink::User {
 public:
  explicit Worker(WorkerOptions options);
  ~Worker();

  /// Makes the ways between the workers of a daemon. Before any of them starts or takes a step;
  /// all of them stop before any is destroyed.
  static void introduce(const std::vector<std::unique_ptr<Worker>>& workers);

  /// Starts the thread, pinned if options.cpu says so. `control` is told when reports are waiting.
  Result<void> start(Waker& control);
  /// Ends the thread. Requests in flight are dropped: drain first.
  void stop();

  // Control thread. False: the queue is full, try again.
  bool command(const WorkerCommand& command) noexcept;
  std::optional<WorkerReport> take_report() noexcept { return reports_.try_pop(); }

  /// Gives the worker a connection. False: the queue is full, try again.
  bool add_link(std::unique_ptr<NewLink> link) noexcept;
  std::optional<LinkEnded> take_ended_link() noexcept { return ended_links_.try_pop(); }
  /// Something has become of a link: the worker looks, also if it sleeps. Any thread.
  void wake() noexcept { waker_.notify(); }

  /// Takes spin_us, reload_wait_us and inline_inflate_bytes of `options`; the rest stays as it was.
  void retune(const WorkerOptions& options) noexcept;
  /// The kill switch: while off, every read and stat routed from here on answers KELP_USE_HTTP and
  /// no volume is touched for it; what is in flight ends as it would. No-ops are answered.
  void set_serving(bool serving) noexcept {
    live_.serving.store(serving, std::memory_order_release);
  }
  bool serving() const noexcept { return live_.serving.load(std::memory_order_relaxed); }

  /// Null unless options.remote. Whoever reads there sets `reader` before start(), and outlives
  /// the worker's thread.
  RemoteLane* remote_lane() noexcept { return remote_.get(); }

  // Any thread.
  const WorkerCounters& counters() const noexcept { return counters_; }
  const WorkerLatencies& latencies() const noexcept { return latencies_; }
  const WorkerOptions& options() const noexcept { return options_; }
  const Loader& loader() const noexcept { return *loader_; }
  /// Nanoseconds of CPU time the thread has used.
  std::uint64_t cpu_time_ns() const noexcept;

  /// One turn of the loop; true if it found work. Public for one-threaded tests and measurements:
  /// never together with start().
  bool poll_once() noexcept;

 private:
  /// What the control thread may change while the worker runs. On a cache line of their own, which
  /// stays shared until somebody does. relaxed where nothing else is said: a number by itself.
  struct alignas(128) Live {
    std::atomic<bool> serving{true};
    std::atomic<Ticks> spin{0};
    std::atomic<std::uint64_t> reload_wait_us{0};
    std::atomic<std::uint64_t> inline_inflate_bytes{0};
  };

  enum class SlotState : std::uint8_t { kLoading, kServing, kUseHttp };
  /// A volume of one server. Those of one id are a list, the lowest server first but for 0, which
  /// is last.
  struct VolumeSlot {
    VolumeKey key;
    SlotState state = SlotState::kLoading;
    bool reopen_unsent = false;
    std::uint64_t fresh_batch = 0;   // the batch the volume was last found current in
    std::uint64_t behind_batch = 0;  // and the one it was last found behind in
    std::unique_ptr<Volume> volume;
    std::unique_ptr<VolumeSlot> next;
  };

  // worker.cc
  void run() noexcept;
  bool may_sleep() const noexcept;
  Ticks worthwhile_spin() const noexcept;
  void sleep() noexcept;
  int sleep_timeout_ms() const noexcept;
  std::uint32_t take_messages() noexcept;
  void take_command(const WorkerCommand& command) noexcept;
  void take_news(VolumeNews news) noexcept;
  VolumeSlot& make_slot(VolumeKey key) noexcept;
  void drop_slot(VolumeKey key) noexcept;
  VolumeSlot* find_slot(VolumeKey key) noexcept;
  void watch_closes(const Volume& volume) noexcept;
  void take_closes() noexcept;
  void add_ring(ServerRing* ring) noexcept;
  void remove_ring(ServerRing* ring) noexcept;
  void divide_ops() noexcept;
  bool report(WorkerReport::Kind kind, ServerRing* ring) noexcept;
  void show_cpu() noexcept;
  void do_periodic_work() noexcept;
  void end_overdue(OpList& list, Ticks now) noexcept;
  void finish_removals() noexcept;
  void retire(std::unique_ptr<Volume> volume) noexcept;

  // worker_poll.cc
  std::uint32_t drain_submissions() noexcept;
  std::uint32_t drain_clients() noexcept;
  std::uint32_t drain_contended() noexcept;
  std::uint32_t drain_next_client(std::uint32_t budget) noexcept;
  static bool has_more(const ClientShare& share) noexcept;
  std::uint32_t drain_client(ClientShare& share, std::uint32_t budget) noexcept;
  std::uint32_t drain_ring(ServerRing& ring, std::uint32_t budget) noexcept;
  std::uint32_t ration(ClientShare& share, Ticks now) noexcept;
  static bool names_hints(const ServerRing& ring, const Submission& submission) noexcept;
  void begin(ServerRing& ring, const Submission& submission, Ticks now) noexcept;
  void count_begun(ClientShare& share, std::uint64_t bytes) noexcept;
  void count_ended(ClientShare& share, std::uint64_t bytes) noexcept;
  void judge(ClientShare& share) noexcept;
  void break_ring(ServerRing& ring) noexcept;
  void break_condemned() noexcept;
  void answer(Op& op, kelp_status status, const ReadOutcome& outcome) noexcept;
  void answer_held(Op& op) noexcept;
  void end(OpIndex index, const ReadOutcome& outcome) noexcept;
  void end(OpIndex index, kelp_status status) noexcept;
  void publish() noexcept;

  /// Nobody waits for it: a drain has stopped the loads, too.
  bool unwanted(const Op& op) const noexcept {
    return op.unwanted() || (draining_ && op.generated());
  }

  // worker_remote.cc
  bool may_go_elsewhere(const Op& op, kelp_status status) const noexcept;
  bool may_go_elsewhere(const Op& op) const noexcept;
  bool go_elsewhere(OpIndex index, kelp_status why) noexcept;
  void lend(OpIndex index, kelp_status why) noexcept;
  void ask_back(OpIndex index) noexcept;
  std::uint32_t take_remote() noexcept;
  void cancel_abandoned() noexcept;

  // worker_peers.cc
  std::uint32_t take_links() noexcept;
  void sweep_links() noexcept;
  void report_link(const LinkEnded& ended) noexcept;
  void learn_route(const Op& op, PeerIndex peer) noexcept;
  bool ask_peer(OpIndex index) noexcept;
  void wait_for_peer(OpIndex index, Ticks now) noexcept;
  LinkRead wanted_of_peer(const Op& op, Ticks now) const noexcept;
  void be_patient(Op& op, Ticks now) const noexcept;
  void answered(std::uint32_t owner, const wire::Answer& answer, bool intact) override;
  void take_slice(OpIndex index, std::uint32_t slice, const wire::Answer& answer) noexcept;
  bool stop_peer(Op& op, kelp_status why) noexcept;
  void give_up_peer(OpIndex index, kelp_status why) noexcept;
  void finish_peer(OpIndex index, const ReadOutcome& outcome) noexcept;
  void leave_peer(OpIndex index, kelp_status why) noexcept;
  void passed_over(GatewayLink& link) override;
  void released(std::uint32_t owner) override;
  void lost(std::uint32_t owner) override;
  void nothing_lands(std::uint32_t owner) noexcept;
  void let_go_overdue(Ticks now) noexcept;

  // worker_hedge.cc
  bool may_hedge(const Op& op, Ticks now) const noexcept;
  void hedge(OpIndex index, Ticks now) noexcept;
  void end_hedge(const Op& second, const ReadOutcome& outcome) noexcept;
  void forget_hedge(Op& op) noexcept;

  // worker_target.cc
  void asked(TargetLink& link, const wire::Request& request, std::string_view token) override;
  void cancelled(TargetLink& link, std::uint16_t slot) override;
  void answer_peer(const Op& op, const ReadOutcome& outcome) noexcept;
  void count_answer(const Op& op, kelp_status status, std::uint32_t bytes) noexcept;

  // worker_load.cc
  std::uint32_t generate() noexcept;
  void begin_generated(const LoadGenerator::Next& next, Ticks now) noexcept;
  void end_generated(const Op& op, const ReadOutcome& outcome) noexcept;

  // worker_forward.cc
  void forward(OpIndex index) noexcept;
  std::uint32_t take_forwarded() noexcept;
  void begin_forwarded(ForwardLink& from, const ForwardedRequest& request) noexcept;
  void send_back(const Op& op, const ReadOutcome& outcome) noexcept;

  // worker_read.cc
  std::uint32_t route_waiting() noexcept;
  void route(OpIndex index) noexcept;
  void look_around() noexcept;
  VolumeSlot* choose_slot(std::uint32_t volume) noexcept;
  bool attested(const VolumeSlot& slot) const noexcept;
  bool wants_token(const VolumeSlot& slot, const Op& op) const noexcept;
  bool ensure_fresh(VolumeSlot& slot) noexcept;
  void reload(VolumeSlot& slot) noexcept;
  void wait_for_volume(OpIndex index) noexcept;
  void start_read(OpIndex index, Volume& volume, const NeedleLocation& location) noexcept;
  bool read_from_cache(OpIndex index, const NeedleLocation& location) noexcept;
  void keep_content(const Op& op) noexcept;
  std::uint32_t continue_reads() noexcept;
  std::uint32_t take_finished_reads() noexcept;
  void advance(OpIndex index) noexcept;
  bool read_slice(Op& op) noexcept;
  /// Around what touches a client's memory: see read_slice().
  struct Touch {
    Ticks start = 0;
    bool watchful = false;
    long slept_before = 0;
  };
  Touch begin_touch(const Op& op) const noexcept;
  void end_touch(const Op& op, const Touch& touch) noexcept;
  void read_done(OpIndex index, const ReadOutcome& outcome) noexcept;
  void read_privately(OpIndex index) noexcept;
  bool try_private_inline(Op& op, ReadOutcome& outcome) noexcept;
  enum class Since : std::uint8_t { kSame, kChanged, kBehind };
  Since since_started(Op& op) noexcept;
  void restart(OpIndex index, Since why) noexcept;
  void unpin(Op& op) noexcept;

  static constexpr std::uint32_t kBatch = 32;
  /// Taken from one client before the next one's turn, while there are several.
  static constexpr std::uint32_t kQuantum = 4;
  /// Taken of all queues in a turn while more than one client submits, and for so many turns after.
  static constexpr std::uint32_t kContendedBatch = 4;
  static constexpr std::uint64_t kContendedTurns = 4096;
  /// Records up to this size are inflated on the worker. Bounds the worst case, a stream of empty
  /// blocks that yields nothing, to a few milliseconds.
  static constexpr std::size_t kInlinePrivateBytes = 16 * 1024;
  /// So many bytes for another host are sent from the page cache. Copying fewer is cheaper.
  static constexpr std::size_t kSentFromFileBytes = 256 * 1024;
  /// Records up to this size go through memory of the worker's own.
  static constexpr std::size_t kCopiedBytes = 8 * 1024;

  const WorkerOptions options_;
  const bool has_cpus_to_spare_;  // this process may use more than it has workers
  const TickRate& rate_;
  Live live_;
  std::unique_ptr<Op[]> ops_;
  OpList free_;
  OpList routing_;
  OpList volume_waits_;
  OpList reading_;
  OpList storage_waits_;
  OpList private_waits_;
  OpList forwarded_;
  OpList remote_waits_;
  OpList peer_waits_;
  LoadGenerator* load_ = nullptr;
  std::unique_ptr<RemoteLane> remote_;
  std::vector<std::shared_ptr<ForwardLink>> outgoing_;  // by worker; empty where there is one
  std::vector<std::shared_ptr<ForwardLink>> incoming_;
  std::vector<ServerRing*> rings_;
  std::vector<ServerRing*> leaving_;  // removed, with requests in flight
  std::vector<ClientShare*> shares_;  // of the clients those rings belong to
  std::uint32_t next_ring_ = 0;
  std::uint32_t next_share_ = 0;
  std::uint32_t next_queue_ = 0;              // of them, too
  const ClientShare* last_served_ = nullptr;  // compared only
  std::uint64_t client_turns_ = 0;
  std::uint64_t contended_until_ = 0;  // of those turns: several clients submit
  std::uint64_t alone_until_ = 0;      // and there are some without a queue
  std::uint32_t scarce_requests_ = 0;  // what each of them may have in work while ops are scarce
  absl::flat_hash_map<std::uint32_t, std::unique_ptr<VolumeSlot>> volumes_;
  CloseWatch closes_;
  std::unique_ptr<Bell> closes_bell_;             // of closes_; none: it is asked
  std::vector<std::unique_ptr<Volume>> retired_;  // replaced, waiting for their last read
  std::uint64_t batch_ = 0;
  Ticks batch_began_ = 0;
  std::uint32_t cpu_ = kNoCpu;  // where this thread was last seen
  std::uint64_t idle_turns_ = 0;
  Ticks last_work_ = 0;
  Ticks short_gap_ = 0;       // twice that since the work before; 0: it was not short
  Ticks typical_answer_ = 0;  // of another host; an exponential mean of about the last 16
  Ticks last_answer_ = 0;     // of our own; those of remote_ are not
  Ticks last_beat_ = 0;
  Ticks last_look_ = 0;
  Ticks last_timers_ = 0;
  const Ticks suspicious_;     // a slice is read faster, unless something made us sleep
  Ticks watchful_until_ = 0;   // each read is asked about
  std::optional<long> slept_;  // times_slept() when last asked; none: sleep() has been called since
  Ticks rationed_until_ = 0;   // a client is; see ClientShare::ration
  bool draining_ = false;
  bool drained_reported_ = false;
  std::unique_ptr<NeedleCache> cache_;       // none: nothing is kept
  std::unique_ptr<HedgeRooms> hedge_rooms_;  // none: nothing is tried in two ways at once
  GzipInflater inflater_;
  std::unique_ptr<PrivateRead> private_read_;
  std::unique_ptr<std::byte[]> private_memory_;  // kInlinePrivateBytes, of one read at a time

  WorkerCounters counters_;
  WorkerLatencies latencies_;
  Waker waker_;
  UniqueFd epoll_;
  Waker* control_ = nullptr;
  SpscQueue<WorkerCommand> commands_;
  SpscQueue<WorkerReport> reports_;
  SpscQueue<std::unique_ptr<NewLink>> new_links_;
  SpscQueue<LinkEnded> ended_links_;
  std::atomic<bool> stop_{false};
  PeerLinks peers_;  // before the threads that may read into its memory
  // Last, so that their threads end before what they work on goes.
  std::unique_ptr<StorageThread> storage_;
  std::unique_ptr<Loader> loader_;
  std::thread thread_;
};

}  // namespace kelp
