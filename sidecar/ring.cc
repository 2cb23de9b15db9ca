#include "sidecar/ring.h"

namespace kelp::sidecar {
namespace {

constexpr std::uint32_t kRingEntries = 512;
constexpr std::uint32_t kMostDescriptors = 128;

}  // namespace

bool Ring::attach() {
  kelp_options options = KELP_OPTIONS_INIT;
  options.data_bytes = Buffers::total_bytes();
  options.ring_entries = kRingEntries;
  options.spin_us = 0;
  options.run_dir = run_dir_.c_str();
  options.name = "sidecar";
  if (kelp_connect(&options, &connection_) != KELP_OK ||
      kelp_channel_open(connection_, &channel_) != KELP_OK) {
    detach();
    return false;
  }
  capacity_ = kelp_channel_capacity(channel_);
  batch_.reserve(capacity_);
  buffers_ = std::make_unique<Buffers>(connection_);
  return true;
}

void Ring::detach() {
  batch_.clear();
  in_flight_ = 0;
  capacity_ = 0;
  buffers_.reset();
  kelp_close(connection_);
  connection_ = nullptr;
  channel_ = nullptr;
}

bool Ring::submit() {
  if (batch_.empty()) return true;
  std::uint32_t taken = 0;
  const kelp_status status =
      kelp_submit(channel_, batch_.data(), static_cast<std::uint32_t>(batch_.size()), &taken);
  batch_.erase(batch_.begin(), batch_.begin() + taken);
  // Buffers that reads which timed out still hold take places: the rest goes when those come back.
  return status == KELP_OK || status == KELP_RING_FULL;
}

bool Ring::reap(std::span<kelp_completion> out, std::uint32_t& count) {
  const kelp_status status =
      kelp_reap(channel_, out.data(), static_cast<std::uint32_t>(out.size()), 0, &count);
  in_flight_ -= count;
  return status == KELP_OK;
}

std::vector<int> Ring::descriptors() const {
  std::vector<int> all(kMostDescriptors);
  std::uint32_t count = 0;
  kelp_channel_fds(channel_, all.data(), kMostDescriptors, &count);
  all.resize(count);
  return all;
}

bool Ring::arm() {
  std::uint32_t ready = 0;
  kelp_channel_arm(channel_, &ready);
  return ready != 0;
}

void Ring::disarm(bool woken) {
  kelp_channel_disarm(channel_, woken ? 1 : 0);
}

}  // namespace kelp::sidecar
