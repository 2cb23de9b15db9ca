// A read as it is asked of the kelpd of another host: slice by slice. The first slice tells how
// much there is; then several are under way at once, each into its own part of the buffer.
//
// Slices must be of one record, each as long as it should be, or the peer is not believed. Belongs
// to one op; nothing here waits.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "dataplane/transport/link.h"
#include "dataplane/volume/read_request.h"
#include "shm_ring/ticks.h"

namespace kelp {

class PeerRead {
 public:
  static constexpr std::uint32_t kMostSlices = 4;  ///< under way at once

  /// `owner` of a slice's request: which op, and which of its slices.
  struct Owner {
    std::uint32_t op;
    std::uint32_t slice;
  };
  static Owner owner_of(std::uint32_t owner) noexcept {
    return {owner & kOpMask, owner >> kOpBits};
  }
  static constexpr std::uint32_t kOpBits = 24;
  static constexpr std::uint32_t kOpMask = (1U << kOpBits) - 1;

  /// Asks for all of `wanted`, whose buffer may be longer than a slice, beginning with the first.
  /// False: the link takes nothing now, and nothing has happened.
  bool begin(GatewayLink& link, std::uint32_t op, const LinkRead& wanted, Ticks now) noexcept;

  enum class Turn : std::uint8_t {
    kMore,   ///< slices are under way, or next() can be asked
    kDone,   ///< outcome() is the answer
    kWrong,  ///< the peer contradicts itself
  };
  /// The answer to `slice`, which was OK and intact.
  Turn take(std::uint32_t slice, const wire::Answer& answer) noexcept;
  /// Asks for more, as far as there is any. False: nothing is under way, and the link takes
  /// nothing.
  bool next(std::uint32_t op, const LinkRead& wanted, Ticks now) noexcept;

  /// The request of `slice` is over: before take(), or without an answer. How long it took.
  Ticks ended(std::uint32_t slice, Ticks now) noexcept;
  /// Whether nothing has been answered yet.
  bool unanswered() const noexcept { return wanted_bytes_ == kUnknown; }
  /// Nothing is under way: the buffer is its owner's.
  bool idle() const noexcept { return under_way_ == 0; }
  /// Nobody waits any more. False: something may still land in the buffer, until ended() has been
  /// said of all that is under way.
  bool let_go() noexcept;

  GatewayLink& link() const noexcept { return *link_; }
  const ReadOutcome& outcome() const noexcept { return outcome_; }

 private:
  static constexpr std::uint32_t kUnknown = UINT32_MAX;
  struct Slice {
    std::uint16_t slot = 0;
    std::uint32_t at_bytes = 0;
    std::uint32_t length_bytes = 0;
    Ticks asked = 0;
  };

  bool ask(std::uint32_t op, const LinkRead& wanted, Ticks now) noexcept;

  GatewayLink* link_ = nullptr;
  std::uint32_t under_way_ = 0;  // a bit per slice
  std::uint32_t asked_bytes_ = 0;
  std::uint32_t come_bytes_ = 0;
  std::uint32_t wanted_bytes_ = kUnknown;  // of the buffer
  std::uint64_t offset_bytes_ = 0;
  std::size_t room_bytes_ = 0;
  bool stat_ = false;
  std::uint64_t source_ = 0;  // the record the slices are of
  ReadOutcome outcome_;
  std::array<Slice, kMostSlices> slices_{};
};

}  // namespace kelp
