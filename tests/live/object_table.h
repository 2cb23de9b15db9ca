// The objects of the live test and what weed last acknowledged for each. Any thread; a mutex per
// object.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "live/content.h"

namespace kelp::live {

/// What is known of one object at one moment.
struct Snapshot {
  std::string fid;            ///< as a client writes it; empty: nothing was stored here yet
  Content content;            ///< as acknowledged
  bool in_flight = false;     ///< its writer has asked for a change and has no answer yet
  std::uint64_t changes = 0;  ///< raised by every begin() and every end()
};

/// Written by one thread, watched by the others.
class Object {
 public:
  Snapshot look() const {
    const std::lock_guard hold(mutex_);
    return state_;
  }

  /// Before the request leaves: from now on nobody can tell what a read should answer.
  void begin() {
    const std::lock_guard hold(mutex_);
    state_.in_flight = true;
    ++state_.changes;
  }

  /// After the acknowledgement.
  void end(std::string fid, const Content& content) {
    const std::lock_guard hold(mutex_);
    state_ = {.fid = std::move(fid),
              .content = content,
              .in_flight = false,
              .changes = state_.changes + 1};
  }

 private:
  mutable std::mutex mutex_;
  Snapshot state_;
};

using ObjectTable = std::vector<std::unique_ptr<Object>>;

}  // namespace kelp::live
