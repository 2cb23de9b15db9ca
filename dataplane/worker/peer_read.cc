#include "dataplane/worker/peer_read.h"

#include <algorithm>
#include <bit>

namespace kelp {

bool PeerRead::begin(GatewayLink& link, std::uint32_t op, const LinkRead& wanted,
                     Ticks now) noexcept {
  link_ = &link;
  under_way_ = 0;
  asked_bytes_ = come_bytes_ = 0;
  wanted_bytes_ = kUnknown;
  offset_bytes_ = wanted.offset_bytes;
  room_bytes_ = wanted.buffer.size();
  stat_ = wanted.stat;
  return ask(op, wanted, now);
}

bool PeerRead::ask(std::uint32_t op, const LinkRead& wanted, Ticks now) noexcept {
  const auto free = static_cast<std::uint32_t>(std::countr_one(under_way_));
  const std::size_t end = std::min<std::size_t>(room_bytes_, wanted_bytes_);
  LinkRead slice = wanted;
  slice.offset_bytes += asked_bytes_;
  slice.buffer = wanted.buffer.subspan(
      asked_bytes_, std::min<std::size_t>(end - asked_bytes_, link_->max_slice_bytes()));
  const auto slot = link_->ask(op | free << kOpBits, slice);
  if (!slot) return false;
  const auto length = static_cast<std::uint32_t>(slice.buffer.size());
  slices_[free] = {*slot, asked_bytes_, length, now};
  under_way_ |= 1U << free;
  asked_bytes_ += length;
  return true;
}

bool PeerRead::next(std::uint32_t op, const LinkRead& wanted, Ticks now) noexcept {
  while (asked_bytes_ < wanted_bytes_ &&
         static_cast<std::uint32_t>(std::popcount(under_way_)) < kMostSlices) {
    if (!ask(op, wanted, now)) break;
  }
  return under_way_ != 0;
}

Ticks PeerRead::ended(std::uint32_t slice, Ticks now) noexcept {
  under_way_ &= ~(1U << slice);
  return now - slices_[slice].asked;
}

PeerRead::Turn PeerRead::take(std::uint32_t slice, const wire::Answer& answer) noexcept {
  constexpr std::uint16_t kOfTheTarget = KELP_FLAG_CRC_VERIFIED | KELP_FLAG_INFLATED;
  ReadOutcome outcome;
  if (stat_) {
    outcome.status = KELP_OK;
    outcome.bytes = answer.bytes;
    outcome.total_bytes = answer.total_bytes;
    outcome.flags = answer.flags;
    outcome_ = outcome;
    return Turn::kDone;
  }
  settle_range(offset_bytes_, room_bytes_, answer.total_bytes, outcome);
  const bool first = unanswered();
  if (outcome.status != KELP_OK) return Turn::kWrong;
  if (!first && (answer.source != source_ || answer.total_bytes != outcome_.total_bytes)) {
    return Turn::kWrong;
  }
  const Slice& asked = slices_[slice];
  if (asked.at_bytes > outcome.bytes ||
      answer.bytes != std::min(asked.length_bytes, outcome.bytes - asked.at_bytes)) {
    return Turn::kWrong;
  }
  if (first) {
    outcome_ = outcome;
    // The target's checksum was over what one answer carried.
    outcome_.flags |= answer.flags & kOfTheTarget;
    source_ = answer.source;
    wanted_bytes_ = outcome.bytes;
    asked_bytes_ = std::min(asked_bytes_, wanted_bytes_);
  }
  come_bytes_ += answer.bytes;
  return come_bytes_ == wanted_bytes_ ? Turn::kDone : Turn::kMore;
}

bool PeerRead::let_go() noexcept {
  for (std::uint32_t left = under_way_; left != 0; left &= left - 1) {
    const auto slice = static_cast<std::uint32_t>(std::countr_zero(left));
    if (link_->let_go(slices_[slice].slot)) under_way_ &= ~(1U << slice);
  }
  return under_way_ == 0;
}

}  // namespace kelp
