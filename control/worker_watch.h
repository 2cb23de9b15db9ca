// Whether the workers are alive, told by their turns: a worker that sleeps still turns twice a
// second, so one whose count stands still is stuck. Control thread; knows no clock of its own.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

namespace kelp {

class WorkerWatch {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// `limit` is the silence that counts as death; nothing: nobody wants to know.
  explicit WorkerWatch(std::optional<std::chrono::microseconds> limit) {
    // Half of it would do; a third forgives a late turn of the control thread.
    if (limit) period_ = std::chrono::duration_cast<std::chrono::milliseconds>(*limit / 3);
  }

  /// True when it is time to say "alive" and every worker has turned since that was last said.
  bool may_say_alive(Time now, const std::vector<std::uint64_t>& turns) {
    if (!period_ || (last_ && now - *last_ < *period_)) return false;
    for (std::size_t i = 0; i < turns.size() && i < said_.size(); ++i) {
      if (turns[i] == said_[i]) return false;
    }
    last_ = now;
    said_ = turns;
    return true;
  }

  /// How long the control thread may sleep.
  std::optional<std::chrono::milliseconds> period() const noexcept { return period_; }

 private:
  std::optional<std::chrono::milliseconds> period_;
  std::optional<Time> last_;
  std::vector<std::uint64_t> said_;
};

}  // namespace kelp
