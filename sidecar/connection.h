// One connection of a client. The sidecar's thread only. Small while it is idle: there may be many.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "shm_ring/unique_fd.h"
#include "sidecar/exchange.h"

namespace kelp::sidecar {

struct Connection {
  UniqueFd socket;
  std::uint32_t index = 0;
  std::uint32_t generation = 0;  ///< of its place; events of an earlier one are not for it

  std::string input;         ///< received, and not taken yet: a part of a head, or later requests
  std::size_t searched = 0;  ///< so much of it holds no end of a head
  bool readable = true;      ///< there may be more to receive
  bool ending = false;       ///< the client has said that it sends no more
  bool refused = false;      ///< what it sent was not taken in to its end
  bool lingers = false;      ///< answered for good: what still comes is thrown away
  bool queued = false;       ///< it has had its share of this turn: the next one goes on with it

  std::unique_ptr<Exchange> exchange;  ///< the request that is being answered

  Clock::time_point quiet_since{};   ///< without a request since; trickled bytes do not count
  bool blocked = false;              ///< the client takes nothing at the moment
  Clock::time_point window_start{};  ///< of a blocked one: so much went out since
  std::uint64_t window_bytes = 0;
};

}  // namespace kelp::sidecar
