#include "dataplane/worker/load_generator.h"

#include <time.h>

namespace kelp {
namespace {

std::uint64_t thread_cpu_ns() noexcept {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<std::uint64_t>(used.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(used.tv_nsec);
}

}  // namespace

LoadGenerator::LoadGenerator(LoadPlan plan)
    : plan_(std::move(plan)), memory_(std::size_t{plan_.depth} * plan_.buffer_bytes) {
  for (std::uint32_t slot = plan_.depth; slot > 0; --slot) free_.push_back(slot - 1);
}

double LoadGenerator::seconds() const noexcept {
  return static_cast<double>(TickRate::instance().to_ns(ended_ - began_)) / 1e9;
}

bool LoadGenerator::over(Ticks now) const noexcept {
  const auto ms = static_cast<std::uint64_t>(plan_.duration.count());
  return begun_ >= plan_.requests || stop_.load(std::memory_order_relaxed) ||
         now - began_ >= TickRate::instance().from_us(ms * 1000);
}

void LoadGenerator::begin(Ticks now) noexcept {
  began_ = now;
  cpu_ns_ = thread_cpu_ns();
}

std::optional<LoadGenerator::Next> LoadGenerator::next(Ticks now) noexcept {
  if (free_.empty() || over(now)) return std::nullopt;
  const std::uint32_t slot = free_.back();
  free_.pop_back();
  ++begun_;
  const FileId fid = plan_.fids[next_fid_];
  if (++next_fid_ == plan_.fids.size()) next_fid_ = 0;
  return Next{slot, fid,
              memory_.bytes().subspan(std::size_t{slot} * plan_.buffer_bytes, plan_.buffer_bytes)};
}

void LoadGenerator::ended(std::uint32_t slot, kelp_status status, kelp_path path,
                          std::uint32_t bytes, Ticks taken, Ticks now) noexcept {
  free_.push_back(slot);
  statuses_[status % kStatuses].add();
  if (status == KELP_OK) {
    paths_[path % kPaths].add();
    bytes_.add(bytes);
  }
  latency_.record(TickRate::instance().to_ns(now - taken));
}

bool LoadGenerator::finish_if_over(Ticks now) noexcept {
  if (free_.size() != plan_.depth || !over(now)) return false;
  ended_ = now;
  cpu_ns_ = thread_cpu_ns() - cpu_ns_;
  finished_.store(true, std::memory_order_release);
  return true;
}

}  // namespace kelp
