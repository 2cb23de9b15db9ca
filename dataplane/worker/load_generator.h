// Reads that no client asks for, made by a worker for itself: what a path costs without a program
// and its ring. They go the ways of any other read, into memory of the generator's own.
//
// Made and read by the control thread; worked on by one worker between WorkerCommand::kGenerate
// and finished().
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "dataplane/memory/region_keys.h"
#include "dataplane/transport/zeroed_pages.h"
#include "dataplane/worker/counters.h"
#include "shm_ring/file_id.h"
#include "shm_ring/kelp.h"
#include "shm_ring/ticks.h"

namespace kelp {

struct LoadPlan {
  std::vector<FileId> fids;        ///< at least one; read in turn, over and over
  std::uint32_t depth = 1;         ///< reads in flight
  std::uint32_t buffer_bytes = 0;  ///< of each; longer needles are cut
  std::uint64_t requests = UINT64_MAX;
  std::chrono::milliseconds duration{1000};  ///< or so long, whatever is over first
  std::chrono::milliseconds timeout{5000};   ///< of each
};

class LoadGenerator {
 public:
  /// Throws std::bad_alloc.
  explicit LoadGenerator(LoadPlan plan);

  // The control thread.
  static constexpr int kStatuses = 32;
  static constexpr int kPaths = 8;

  /// No worker has it: it is finished, and nothing was read.
  void refuse() noexcept { finished_.store(true, std::memory_order_release); }
  /// What is in flight ends, nothing follows.
  void stop() noexcept { stop_.store(true, std::memory_order_relaxed); }
  /// All that follows is at rest once this is true, and a moment old before.
  bool finished() const noexcept { return finished_.load(std::memory_order_acquire); }
  const LoadPlan& plan() const noexcept { return plan_; }
  /// All buffers, for whoever registers them; before the worker has it, and after it is finished.
  std::span<std::byte> memory() const noexcept { return memory_.bytes(); }
  RegionKeys& region_keys() noexcept { return keys_; }
  std::uint64_t requests() const noexcept { return latency_.count(); }
  std::uint64_t bytes() const noexcept { return bytes_.value(); }
  std::uint64_t of_status(kelp_status status) const noexcept {
    return statuses_[static_cast<std::size_t>(status)].value();
  }
  std::uint64_t of_path(kelp_path path) const noexcept {
    return paths_[static_cast<std::size_t>(path)].value();
  }
  const Histogram& latency() const noexcept { return latency_; }
  // Only of a finished one.
  double seconds() const noexcept;
  /// CPU time the worker's thread has used meanwhile.
  double cpu_seconds() const noexcept { return static_cast<double>(cpu_ns_) / 1e9; }

  // The worker.
  struct Next {
    std::uint32_t slot = 0;
    FileId fid;
    std::span<std::byte> buffer;
  };
  void begin(Ticks now) noexcept;
  /// nullopt: not now.
  std::optional<Next> next(Ticks now) noexcept;
  void ended(std::uint32_t slot, kelp_status status, kelp_path path, std::uint32_t bytes,
             Ticks taken, Ticks now) noexcept;
  /// Nothing is in flight, nothing will be: finished() from now on, and not to be touched again.
  bool finish_if_over(Ticks now) noexcept;

 private:
  bool over(Ticks now) const noexcept;

  const LoadPlan plan_;
  const ZeroedPages memory_;
  RegionKeys keys_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> finished_{false};
  std::vector<std::uint32_t> free_;
  std::size_t next_fid_ = 0;
  std::uint64_t begun_ = 0;
  Ticks began_ = 0;
  Ticks ended_ = 0;
  std::uint64_t cpu_ns_ = 0;
  Counter bytes_;
  std::array<Counter, kStatuses> statuses_;
  std::array<Counter, kPaths> paths_;
  Histogram latency_;
};

}  // namespace kelp
