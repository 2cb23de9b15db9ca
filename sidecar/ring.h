// The sidecar as a client of kelpd's ring: one connection, one channel. The sidecar's thread only.
// Requests are put together by add() and handed over by submit(), so a batch costs one wake-up.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "shm_ring/kelp.h"
#include "sidecar/buffers.h"

namespace kelp::sidecar {

class Ring {
 public:
  explicit Ring(std::string run_dir) : run_dir_(std::move(run_dir)) {}
  ~Ring() { detach(); }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// Blocks for at most 5 s, which only a daemon that stands still makes it do.
  bool attach();
  /// All slabs are gone with it, and what was in flight is not answered.
  void detach();
  bool attached() const noexcept { return channel_ != nullptr; }

  /// Null while not attached.
  Buffers* buffers() noexcept { return buffers_.get(); }

  /// Whether `operations` more may be added now.
  bool has_room(std::uint32_t operations) const noexcept {
    return in_flight_ + operations <= capacity_;
  }
  void add(const kelp_request& request) {
    batch_.push_back(request);
    ++in_flight_;
  }
  /// False: the daemon takes no requests any more. What was not taken is forgotten: detach().
  bool submit();

  /// What has completed by now. False: the daemon is gone.
  bool reap(std::span<kelp_completion> out, std::uint32_t& count);
  std::uint32_t in_flight() const noexcept { return in_flight_; }
  /// Some of what was added found no place yet; submit() again.
  bool behind() const noexcept { return !batch_.empty(); }

  /// See kelp_channel_fds().
  std::vector<int> descriptors() const;
  /// True: do not sleep.
  bool arm();
  void disarm(bool woken);

 private:
  const std::string run_dir_;
  kelp_connection* connection_ = nullptr;
  kelp_channel* channel_ = nullptr;
  std::unique_ptr<Buffers> buffers_;
  std::vector<kelp_request> batch_;
  std::uint32_t in_flight_ = 0;
  std::uint32_t capacity_ = 0;
};

}  // namespace kelp::sidecar
