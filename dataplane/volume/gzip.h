// Inflating the data of a compressed needle, a turn at a time.
//
// A GzipInflater is a reusable workspace of about 90 KiB: made once, then given one needle after
// the other. One thread at a time. inflate() allocates nothing and each call does a bounded amount
// of work, so a hostile stream costs its reader turns, not a stall.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

struct inflate_state;  // ISA-L's; its header stays out of ours

namespace kelp {

/// What a stream may grow to. Both hold for the whole stream, all members together.
struct GzipLimits {
  std::uint64_t max_output_bytes = std::uint64_t{1} << 30;
  std::uint32_t max_ratio = 1100;  ///< output to stored bytes; deflate itself ends at 1032
};

/// 1f 8b: whether a needle flagged as compressed is gzip at all. Upstream serves one that is not as
/// it is. Source: SeaweedFS weed/util/compression.go, IsGzippedContent.
constexpr bool looks_like_gzip(std::span<const std::byte> stored) noexcept {
  return stored.size() >= 2 && stored[0] == std::byte{0x1f} && stored[1] == std::byte{0x8b};
}

class GzipInflater {
 public:
  /// Input one turn takes at most. Bounds the turns that yield little: at worst (nothing but empty
  /// blocks) this much takes some tens of milliseconds.
  static constexpr std::size_t kTurnInputBytes = std::size_t{256} << 10;

  enum class State : std::uint8_t {
    kMore,      ///< not finished: call again
    kEnd,       ///< every member ended with the right checksum and length; all bytes are out
    kBroken,    ///< not gzip, damaged, cut, or followed by anything that is not a gzip member
    kTooLarge,  ///< more than the limits allow
  };

  struct Turn {
    std::size_t bytes_produced = 0;  ///< at the front of `out`
    State state = State::kBroken;
  };

  GzipInflater();
  ~GzipInflater();
  GzipInflater(GzipInflater&&) noexcept;
  GzipInflater& operator=(GzipInflater&&) noexcept;

  /// Starts over with another needle's data, as it is stored. The bytes stay the caller's, stay
  /// where they are until the last turn, and must be private to the daemon: changing ones are
  /// undefined. No bytes at all are a broken stream.
  void reset(std::span<const std::byte> stored, const GzipLimits& limits) noexcept;

  /// Goes on into `out`, which is not empty; its size may differ from turn to turn.
  /// kMore with 0 bytes is possible and is progress too: it used up input.
  /// Bytes already produced are not to be trusted before kEnd: a member's checksum comes last.
  /// After kEnd, kBroken or kTooLarge every further turn answers the same with 0 bytes.
  Turn inflate(std::span<std::byte> out) noexcept;

 private:
  enum class Phase : std::uint8_t { kMemberHeader, kMemberBody, kOver };

  struct FreeState {
    void operator()(inflate_state* state) const noexcept;
  };

  std::size_t writable_bytes(std::size_t out_bytes) const noexcept;
  bool read_member_header() noexcept;
  State run_member(std::size_t turn_input_end) noexcept;
  State end_member() noexcept;
  std::size_t unread_bytes() const noexcept;
  std::size_t consumed_bytes() const noexcept;

  std::unique_ptr<inflate_state, FreeState> state_;
  std::span<const std::byte> stored_;
  std::uint64_t allowed_bytes_ = 0;   // output, by both limits
  std::uint64_t produced_bytes_ = 0;  // output, by all turns so far
  Phase phase_ = Phase::kOver;
  State verdict_ = State::kBroken;  // once phase_ is kOver
};

}  // namespace kelp
