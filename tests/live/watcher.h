// One watcher: reads random objects of the writers, eight at a time, and judges the answers about
// objects that nobody changed meanwhile. One thread.
#pragma once

#include <array>
#include <random>
#include <span>

#include "bench/kelp_client.h"
#include "live/judge.h"
#include "live/object_table.h"
#include "live/writer.h"

namespace kelp::live {

class Watcher {
 public:
  static Result<Watcher> open(Common& common, unsigned number,
                              std::span<const std::unique_ptr<Object>> objects);

  /// Until common.stop.
  Result<void> run();

  const Tally& tally() const noexcept { return tally_; }

 private:
  static constexpr std::size_t kDepth = 8;
  static constexpr std::size_t kSlotBytes = Pool::kLargestBytes + 4096;

  Watcher(Common& common, unsigned number, std::span<const std::unique_ptr<Object>> objects,
          bench::KelpClient kelp);

  Result<void> step();
  void judge_one(const Object& object, const Snapshot& asked, kelp_request request,
                 kelp_completion done);

  Common& common_;
  std::span<const std::unique_ptr<Object>> objects_;
  bench::KelpClient kelp_;
  std::minstd_rand random_;
  Tally tally_;
};

}  // namespace kelp::live
