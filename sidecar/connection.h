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
  bool lingers = false;      ///< answered for good: what still comes is thrown away
  bool queued = false;       ///< it has had its share of this turn: the next one goes on with it

  std::unique_ptr<Exchange> exchange;  ///< the request that is being answered

  Clock::time_point quiet_since{};  ///< without a request since; trickled bytes do not count
  std::uint64_t swallowed = 0;      ///< while it lingers

  // Whether the client takes its answers. The socket takes much at once and then nothing for long,
  // so what counts is what the client's side has acknowledged: see Server::taken().
  std::uint64_t sent = 0;            ///< given to the socket, of all answers
  bool blocked = false;              ///< the socket takes no more at the moment
  Clock::time_point window_start{};  ///< of a blocked one: so much was taken by then
  std::int64_t window_taken = 0;
  Clock::time_point progress_at{};  ///< of a blocked one: when it had last taken enough
  std::int64_t progress_taken = 0;
};

}  // namespace kelp::sidecar
