#include "tools/bench/run.h"

#include <sys/resource.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace kelp::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double own_cpu_s() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

/// The threads of one run, and what they leave behind.
class Crew {
 public:
  Crew(const Readers& readers, Stop stop) : tallies_(readers.size()), working_(readers.size()) {
    stop.interrupted = &end_;
    const std::uint64_t share = stop.reads / readers.size(), rest = stop.reads % readers.size();
    for (std::size_t i = 0; i < readers.size(); ++i) {
      stop.reads = share + (i < rest ? 1 : 0);
      tallies_[i] = std::make_unique<Tally>();
      threads_.emplace_back([this, i, stop, &readers] { work(*readers[i], stop, *tallies_[i]); });
    }
  }
  ~Crew() {
    for (std::thread& thread : threads_) thread.join();
  }

  /// The readers begin nothing more.
  void end() { end_.store(true, std::memory_order_relaxed); }

  /// True when all have ended within `wait`.
  bool ended_within(std::chrono::milliseconds wait) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, wait, [this] { return working_ == 0; });
  }
  std::unique_ptr<Histogram> latencies() const {
    auto sum = std::make_unique<Histogram>();
    for (const auto& tally : tallies_) sum->add(tally->latency);
    return sum;
  }
  /// After they have ended.
  Outcome<void> collect(Tally& sum) const {
    for (const auto& tally : tallies_) sum.add(*tally);
    return failure_ ? Outcome<void>(tl::unexpected(*failure_)) : Outcome<void>{};
  }

 private:
  void work(Reader& reader, const Stop& stop, Tally& tally) {
    const Outcome<void> done = reader.run(stop, tally);
    if (!done) end();
    const std::lock_guard lock(mutex_);
    if (!done && !failure_) failure_ = done.error();
    --working_;
    changed_.notify_all();
  }

  std::vector<std::unique_ptr<Tally>> tallies_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t working_;
  std::optional<Failure> failure_;
  std::atomic<bool> end_{false};
  std::vector<std::thread> threads_;
};

/// How often the calling thread looks whether it is interrupted.
constexpr std::chrono::milliseconds kLook{100};
constexpr double kWatchPeriodS = 1;

}  // namespace

ProcessCpu::ProcessCpu(int pid) {
  clockid_t clock;
  if (pid > 0 && ::clock_getcpuclockid(pid, &clock) == 0) clock_ = clock;
}

std::optional<double> ProcessCpu::seconds() const {
  timespec used{};
  if (!clock_ || ::clock_gettime(*clock_, &used) != 0) return std::nullopt;
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

double Measured::reads_per_s() const {
  return seconds > 0 ? static_cast<double>(tally.latency.count()) / seconds : 0;
}

double Measured::bytes_per_s() const {
  return seconds > 0 ? static_cast<double>(tally.bytes) / seconds : 0;
}

std::optional<double> Measured::reads_per_cpu_s() const {
  if (!server_cpu_s || client_cpu_s + *server_cpu_s <= 0) return std::nullopt;
  return static_cast<double>(tally.latency.count()) / (client_cpu_s + *server_cpu_s);
}

void Measured::add(const Measured& slice) {
  const bool first = seconds == 0;
  tally.add(slice.tally);
  seconds += slice.seconds;
  client_cpu_s += slice.client_cpu_s;
  if (first) {
    server_cpu_s = slice.server_cpu_s;
  } else if (server_cpu_s) {
    server_cpu_s =
        slice.server_cpu_s ? std::optional(*server_cpu_s + *slice.server_cpu_s) : std::nullopt;
  }
}

Outcome<std::unique_ptr<Measured>> run_readers(const Readers& readers, Stop stop,
                                               const ProcessCpu& server, const Watch& watch) {
  auto measured = std::make_unique<Measured>();
  const std::optional<double> server_before = server.seconds();
  const double cpu_before = own_cpu_s();
  const Clock::time_point start = Clock::now();
  Crew crew(readers, stop);
  for (double watched_s = 0; !crew.ended_within(kLook);) {
    if (stop.interrupted->load(std::memory_order_relaxed)) crew.end();
    if (!watch || seconds_since(start) < watched_s + kWatchPeriodS) continue;
    watched_s = seconds_since(start);
    watch(*crew.latencies(), watched_s);
  }
  measured->seconds = seconds_since(start);
  measured->client_cpu_s = own_cpu_s() - cpu_before;
  const std::optional<double> server_after = server.seconds();
  if (server_before && server_after) measured->server_cpu_s = *server_after - *server_before;
  if (auto collected = crew.collect(measured->tally); !collected) {
    return tl::unexpected(collected.error());
  }
  return measured;
}

}  // namespace kelp::bench
