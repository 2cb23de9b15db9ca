#include "dataplane/volume/gzip.h"

#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <cassert>
#include <limits>

namespace kelp {
namespace {

constexpr std::uint64_t kCounterMax = std::numeric_limits<std::uint32_t>::max();  // ISA-L counts so

/// Saturating: stored bytes and ratio may each be large.
std::uint64_t ratio_limit_bytes(std::size_t stored_bytes, std::uint32_t max_ratio) {
  std::uint64_t product = 0;
  if (__builtin_mul_overflow(std::uint64_t{stored_bytes}, std::uint64_t{max_ratio}, &product)) {
    return std::numeric_limits<std::uint64_t>::max();
  }
  return product;
}

}  // namespace

void GzipInflater::FreeState::operator()(inflate_state* state) const noexcept {
  delete state;
}

GzipInflater::GzipInflater() : state_(new inflate_state()) {
  isal_inflate_init(state_.get());
}
GzipInflater::~GzipInflater() = default;
GzipInflater::GzipInflater(GzipInflater&&) noexcept = default;
GzipInflater& GzipInflater::operator=(GzipInflater&&) noexcept = default;

void GzipInflater::reset(std::span<const std::byte> stored, const GzipLimits& limits) noexcept {
  stored_ = stored;
  produced_bytes_ = 0;
  allowed_bytes_ =
      std::min(limits.max_output_bytes, ratio_limit_bytes(stored.size(), limits.max_ratio));
  // The prototype lacks a const that the library honours.
  state_->next_in = const_cast<std::uint8_t*>(reinterpret_cast<const std::uint8_t*>(stored.data()));
  state_->avail_in = 0;
  phase_ = Phase::kMemberHeader;
  if (stored.size() > kCounterMax) {  // no needle is: their sizes are 32-bit
    phase_ = Phase::kOver;
    verdict_ = State::kTooLarge;
  }
}

GzipInflater::Turn GzipInflater::inflate(std::span<std::byte> out) noexcept {
  assert(!out.empty());
  if (phase_ == Phase::kOver) return {.bytes_produced = 0, .state = verdict_};

  const std::size_t offered_bytes = writable_bytes(out.size());
  state_->next_out = reinterpret_cast<std::uint8_t*>(out.data());
  state_->avail_out = static_cast<std::uint32_t>(offered_bytes);

  const std::size_t turn_input_end = std::min(stored_.size(), consumed_bytes() + kTurnInputBytes);
  State state = State::kMore;
  do {
    state = phase_ == Phase::kMemberHeader ? (read_member_header() ? State::kMore : State::kBroken)
                                           : run_member(turn_input_end);
  } while (state == State::kMore && state_->avail_out > 0 && consumed_bytes() < turn_input_end);

  const std::size_t produced = offered_bytes - state_->avail_out;
  produced_bytes_ += produced;
  if (produced_bytes_ > allowed_bytes_) state = State::kTooLarge;
  if (state != State::kMore) {
    phase_ = Phase::kOver;
    verdict_ = state;
  }
  return {.bytes_produced = produced, .state = state};
}

/// One byte more than is allowed may be asked for: it tells "exactly at the limit" from "beyond".
std::size_t GzipInflater::writable_bytes(std::size_t out_bytes) const noexcept {
  const std::uint64_t left_bytes = allowed_bytes_ - produced_bytes_;
  const std::uint64_t wanted = std::min<std::uint64_t>(out_bytes, kCounterMax);
  return static_cast<std::size_t>(wanted <= left_bytes ? wanted : left_bytes + 1);
}

std::size_t GzipInflater::consumed_bytes() const noexcept {
  return static_cast<std::size_t>(reinterpret_cast<const std::byte*>(state_->next_in) -
                                  stored_.data());
}

std::size_t GzipInflater::unread_bytes() const noexcept {
  return stored_.size() - consumed_bytes();
}

/// The header is read in one piece, from all there is: ISA-L can go on with a header that was cut
/// only if it is handed back a struct it fills in between.
bool GzipInflater::read_member_header() noexcept {
  isal_inflate_reset(state_.get());
  state_->crc_flag = ISAL_GZIP_NO_HDR_VER;  // from the block after the header to the trailer
  state_->hist_bits = 0;
  state_->avail_in = static_cast<std::uint32_t>(unread_bytes());

  isal_gzip_header header;
  isal_gzip_header_init(&header);
  if (isal_read_gzip_header(state_.get(), &header) != ISAL_DECOMP_OK) return false;
  phase_ = Phase::kMemberBody;
  return true;
}

GzipInflater::State GzipInflater::run_member(std::size_t turn_input_end) noexcept {
  const std::size_t input_before = consumed_bytes();
  const std::uint32_t room_before = state_->avail_out;
  assert(input_before <= turn_input_end);
  state_->avail_in = static_cast<std::uint32_t>(turn_input_end - input_before);

  if (isal_inflate(state_.get()) != ISAL_DECOMP_OK) return State::kBroken;
  if (state_->block_state == ISAL_BLOCK_FINISH) return end_member();

  // With room left, only a stream that is cut neither takes nor gives a byte.
  const bool stuck = consumed_bytes() == input_before && state_->avail_out == room_before;
  return stuck ? State::kBroken : State::kMore;
}

/// ISA-L has compared checksum and length with the trailer. What follows must be a member, as in
/// Go's reader: not zeros, not anything else.
GzipInflater::State GzipInflater::end_member() noexcept {
  if (unread_bytes() == 0) return State::kEnd;
  phase_ = Phase::kMemberHeader;
  return State::kMore;
}

}  // namespace kelp
