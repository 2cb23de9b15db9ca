// The thread for work that takes long: finding and opening volumes, replaying indexes, inflating.
//
// Jobs go in turns (64 Ki index rows, 4 MiB from the disk, 1 MiB of inflated bytes), round and
// round, so neither large indexes nor a needle that inflates without end keep the others waiting.
// Serves one worker.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "dataplane/volume/catalog.h"
#include "dataplane/volume/private_read.h"
#include "dataplane/volume/volume.h"
#include "dataplane/worker/op.h"
#include "dataplane/worker/spsc_queue.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct LoaderConfig {
  std::vector<VolumeDirectory> directories;
  std::uint32_t worker = 0;  ///< whose it is, of the `workers` that share the directories' volumes
  std::uint32_t workers = 1;
  std::chrono::milliseconds rescan{2000};  ///< also when no change was notified
  GzipLimits gzip;
  std::uint64_t max_private_bytes = std::uint64_t{1} << 30;  ///< a larger record: use HTTP
};

/// Loader to worker.
struct VolumeNews {
  enum class Kind : std::uint8_t {
    kServe,    ///< `volume` is current; any earlier one is to be retired
    kUseHttp,  ///< known, and only the volume server can read it
    kGone,     ///< not there, or not readable now
  };
  Kind kind = Kind::kGone;
  VolumeKey key;
  std::unique_ptr<Volume> volume;
};

class Loader {
 public:
  /// Watches `config.directories` from here on. `ops` is the worker's slab of `op_count`; `worker`
  /// is told when news or a finished private read are there.
  Loader(LoaderConfig config, Op* ops, std::size_t op_count, Waker& worker);
  ~Loader();

  // The worker's side. False: the queue is full; ask again later.
  bool reopen(VolumeKey key) noexcept { return ask({Ask::Kind::kReopen, key, nullptr}); }
  bool retire(std::unique_ptr<Volume>& volume) noexcept;
  /// Someone asked for a volume that is not known: worth a look at the directories.
  void look_around() noexcept {
    wants_scan_.store(true, std::memory_order_relaxed);
    waker_.notify();
  }
  /// Lends ops[index].read.request(); the answer comes in ops[index].outcome. KELP_DEADLINE: it was
  /// given up, before the turn after the op said so.
  void read_privately(OpIndex index) noexcept;
  std::optional<VolumeNews> take_news() noexcept { return news_.try_pop(); }
  std::optional<OpIndex> take_done() noexcept { return done_.try_pop(); }

  // Any thread.
  const Catalog& catalog() const noexcept { return catalog_; }
  /// The directories have been scanned and everything found then has been opened or refused.
  bool settled() const noexcept { return settled_.load(std::memory_order_acquire); }

 private:
  using Clock = std::chrono::steady_clock;

  struct Ask {
    enum class Kind : std::uint8_t { kReopen, kRetire };
    Kind kind = Kind::kReopen;
    VolumeKey key;
    std::unique_ptr<Volume> volume;
  };
  struct PrivateJob {
    explicit PrivateJob(OpIndex op) : index(op) {}
    OpIndex index;
    std::unique_ptr<std::byte[]> memory;
    std::unique_ptr<GzipInflater> inflater;
    PrivateRead read;
  };

  bool ask(Ask ask) noexcept;
  void run() noexcept;
  void take_asks();
  void scan();
  void open_again(VolumeKey key, Clock::time_point when);
  void start_due_opens();
  bool step_opens();
  bool step_private_reads();
  bool step_private_read(PrivateJob& job);
  void hand_back_unwanted();
  bool give_up(OpIndex index);
  void hand_back(OpIndex index);
  std::unique_ptr<GzipInflater> take_inflater();
  void finish_open(VolumeKey key, VolumeOpen& open);
  void fail_open(VolumeKey key, const OpenFailure& failure);
  void tell(VolumeNews news);
  void watch_directories();
  void drain_notifications();
  void sleep();

  const LoaderConfig config_;
  Op* ops_;
  Catalog catalog_;
  Waker waker_;
  Waker& worker_;
  SpscQueue<Ask> asks_;
  SpscQueue<VolumeNews> news_;
  SpscQueue<OpIndex> wanted_;
  SpscQueue<OpIndex> done_;
  std::atomic<bool> wants_scan_{false};
  std::atomic<bool> settled_{false};
  std::atomic<bool> stop_{false};

  // Of the thread itself.
  UniqueFd inotify_;
  Clock::time_point next_scan_{};
  std::map<VolumeKey, std::unique_ptr<VolumeOpen>> opens_;
  std::map<VolumeKey, Clock::time_point> due_opens_;
  std::map<VolumeKey, std::chrono::milliseconds> reopen_pauses_;  // of volumes refused for now
  std::deque<OpIndex> queued_;  // private reads that have not begun
  std::deque<std::unique_ptr<PrivateJob>> private_jobs_;
  std::vector<std::unique_ptr<GzipInflater>> inflaters_;
  std::thread thread_;
};

}  // namespace kelp
