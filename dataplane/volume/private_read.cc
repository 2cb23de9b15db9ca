#include "dataplane/volume/private_read.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"

namespace kelp {

void PrivateRead::start(const ReadRequest& request, std::span<std::byte> memory,
                        GzipInflater& inflater, const GzipLimits& limits) noexcept {
  request_ = request;
  outcome_ = {};
  shape_ = {};
  inflated_bytes_ = 0;
  wrapped_bytes_ = 0;
  inflater_ = &inflater;
  limits_ = limits;
  memory_ = memory.first(memory_bytes(request.record));
  start_io();
}

void PrivateRead::start_io() noexcept {
  next_ = Next::kIo;
  io_.start(request_.record.location.offset_bytes + wrapped_bytes_);
  io_.add(memory_);
}

void PrivateRead::finish(kelp_status status) noexcept {
  outcome_.status = status;
  next_ = Next::kDone;
}

void PrivateRead::io_done(std::int64_t result) noexcept {
  if (result <= 0) return finish(KELP_CORRUPT);
  if (io_.advance(static_cast<std::size_t>(result))) record_arrived();
}

void PrivateRead::record_arrived() noexcept {
  const ExpectedRecord& record = request_.record;
  kelp_status status = check_prefix(record, memory_.first(record.prefix_bytes()), shape_);
  if (status == KELP_CORRUPT && wrapped_bytes_ != request_.wrap_bytes) {
    wrapped_bytes_ = request_.wrap_bytes;
    return start_io();
  }
  if (status != KELP_OK) return finish(status);

  const std::size_t meta_at = shape_.data_offset_bytes + shape_.data_bytes;
  status = check_suffix(record, memory_.subspan(meta_at, shape_.meta_bytes),
                        memory_.subspan(meta_at + shape_.meta_bytes), request_.stat, meta_, tail_);
  if (status != KELP_OK) return finish(status);

  const std::span<const std::byte> stored =
      memory_.subspan(shape_.data_offset_bytes, shape_.data_bytes);
  crc_ = crc32c(stored);
  if (record.body_bytes() != 0 && !checksum_matches(tail_.checksum, crc_)) {
    return finish(KELP_CORRUPT);
  }
  outcome_.flags |= KELP_FLAG_CRC_VERIFIED;
  // Flagged compressed and not gzip: upstream serves the stored bytes, and so do we.
  if (!meta_.has(kFlagCompressed) || !looks_like_gzip(stored)) return serve_plain();
  inflater_->reset(stored, limits_);
  next_ = Next::kInflate;
}

void PrivateRead::serve_plain() noexcept {
  next_ = Next::kDone;
  if (request_.stat) {
    const std::uint32_t crc = request_.record.body_bytes() == 0 ? 0 : crc_;
    write_stat(request_, shape_, meta_, tail_, shape_.data_bytes, crc, outcome_);
    return;
  }
  settle_range(request_.offset_bytes, request_.destination.size(), shape_.data_bytes, outcome_);
  if (outcome_.status != KELP_OK || outcome_.bytes == 0) return;
  std::memcpy(request_.destination.data(),
              memory_.data() + shape_.data_offset_bytes + request_.offset_bytes, outcome_.bytes);
}

void PrivateRead::inflate(std::uint64_t budget_bytes) noexcept {
  const std::uint64_t goal = inflated_bytes_ + budget_bytes;
  do {
    const GzipInflater::Turn turn = inflater_->inflate(window_);
    take_window(std::span(window_).first(turn.bytes_produced));
    switch (turn.state) {
      case GzipInflater::State::kMore:
        break;
      case GzipInflater::State::kEnd:
        return inflated_all();
      case GzipInflater::State::kBroken:
        return finish(KELP_BROKEN_GZIP);
      case GzipInflater::State::kTooLarge:
        return finish(KELP_USE_HTTP);
    }
    // A turn without output has used up its share of input: that is a turn's work too.
    if (turn.bytes_produced == 0) return;
  } while (inflated_bytes_ < goal);
}

void PrivateRead::take_window(std::span<const std::byte> window) noexcept {
  const std::uint64_t begin = inflated_bytes_;
  inflated_bytes_ += window.size();
  if (request_.stat) return;
  const std::uint64_t wanted_begin = request_.offset_bytes;
  const std::uint64_t capacity = request_.destination.size();
  if (wanted_begin >= inflated_bytes_) return;
  const std::uint64_t from = std::max(begin, wanted_begin);
  const std::uint64_t into = from - wanted_begin;
  if (into >= capacity) return;
  const std::uint64_t count = std::min(inflated_bytes_ - from, capacity - into);
  std::memcpy(request_.destination.data() + into, window.data() + (from - begin), count);
}

void PrivateRead::inflated_all() noexcept {
  next_ = Next::kDone;
  outcome_.flags |= KELP_FLAG_INFLATED;
  if (request_.stat) {
    write_stat(request_, shape_, meta_, tail_, inflated_bytes_, crc_, outcome_);
  } else {
    settle_range(request_.offset_bytes, request_.destination.size(), inflated_bytes_, outcome_);
  }
}

}  // namespace kelp
