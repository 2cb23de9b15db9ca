#include "dataplane/volume/needle_read.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"

namespace kelp {

void NeedleRead::start(const ReadRequest& request,
                       std::atomic<std::uint32_t>& meta_guess_bytes) noexcept {
  request_ = request;
  outcome_ = {};
  shape_ = {};
  crc_ = 0;
  wrapped_bytes_ = 0;
  meta_guess_bytes_ = &meta_guess_bytes;

  const ExpectedRecord& record = request_.record;
  if (!request_.stat && record.location.body_bytes > 0 &&
      record.unpadded_bytes() <= request_.scratch.size()) {
    direct_bytes_ = 0;
    begin_io(Stage::kScratch, 0);
    io_.add(request_.scratch.first(record.unpadded_bytes()));
    return;
  }
  const std::uint64_t body =
      record.body_bytes() - (record.has_data_length() ? kDataLengthBytes : 0);
  const std::uint64_t guess =
      record.has_data_length() ? meta_guess_bytes.load(std::memory_order_relaxed) : 0;
  direct_bytes_ = body > guess ? body - guess : 0;
  const std::uint64_t suffix = body - direct_bytes_ + tail_bytes(record.version);
  const bool whole_fits = !request_.stat && !request_.judge_only && request_.offset_bytes == 0 &&
                          direct_bytes_ <= request_.destination.size() &&
                          direct_bytes_ <= kSliceBytes && suffix <= suffix_room().size() &&
                          record.location.body_bytes >= 0;
  if (!whole_fits) {
    start_prefix();
    return;
  }
  begin_io(Stage::kWhole, 0);
  io_.add(prefix());
  io_.add(request_.destination.first(direct_bytes_));
  io_.add(suffix_room().first(suffix));
}

void NeedleRead::forgo_scratch() noexcept {
  if (next_ != Next::kIo || stage_ != Stage::kScratch) return;
  ReadRequest without = request_;
  without.scratch = {};
  start(without, *meta_guess_bytes_);
}

void NeedleRead::begin_io(Stage stage, std::uint64_t record_offset) noexcept {
  stage_ = stage;
  next_ = Next::kIo;
  io_.start(request_.record.location.offset_bytes + wrapped_bytes_ + record_offset);
}

void NeedleRead::finish(kelp_status status) noexcept {
  outcome_.status = status;
  next_ = Next::kDone;
}

void NeedleRead::io_done(std::int64_t result) noexcept {
  if (result < 0) {
    // EFAULT: the client punched a hole in its memory; anything else is the storage's trouble.
    finish(result == -EFAULT ? KELP_INVALID : KELP_CORRUPT);
    return;
  }
  if (result == 0) {  // the row points past the end of the file
    finish(KELP_CORRUPT);
    return;
  }
  if (!io_.advance(static_cast<std::size_t>(result))) return;
  switch (stage_) {
    case Stage::kScratch:
      scratch_arrived();
      return;
    case Stage::kWhole:
      whole_arrived();
      return;
    case Stage::kPrefix:
      prefix_arrived();
      return;
    case Stage::kSuffix:
      suffix_arrived();
      return;
    case Stage::kData:
      slice_arrived();
      return;
    case Stage::kRecheck:
      recheck_arrived();
      return;
  }
}

bool NeedleRead::judge_prefix() noexcept {
  const kelp_status status = check_prefix(request_.record, prefix(), shape_);
  if (status == KELP_OK) return true;
  if (status == KELP_CORRUPT && wrapped_bytes_ != request_.wrap_bytes) {
    wrapped_bytes_ = request_.wrap_bytes;
    start_prefix();
  } else {
    finish(status);
  }
  return false;
}

void NeedleRead::scratch_arrived() noexcept {
  const std::span<const std::byte> record =
      request_.scratch.first(request_.record.unpadded_bytes());
  std::memcpy(prefix().data(), record.data(), prefix().size());
  if (!judge_prefix()) return;
  const std::uint64_t meta_at = shape_.data_offset_bytes + shape_.data_bytes;
  if (!judge_suffix(record.subspan(meta_at))) return;
  const auto data = record.subspan(shape_.data_offset_bytes, shape_.data_bytes);
  const std::uint32_t crc = crc32c(data);
  if (!checksum_matches(tail_.checksum, crc)) {
    finish(KELP_CORRUPT);
    return;
  }
  next_ = Next::kDone;
  settle_range(request_.offset_bytes, request_.destination.size(), shape_.data_bytes, outcome_);
  if (outcome_.status != KELP_OK) return;
  outcome_.flags |= KELP_FLAG_CRC_VERIFIED;
  outcome_.has_crc = outcome_.bytes == shape_.data_bytes;
  outcome_.crc32c = crc;
  if (outcome_.bytes == 0) return;
  std::memcpy(request_.destination.data(), data.data() + request_.offset_bytes, outcome_.bytes);
}

std::optional<std::span<const std::byte>> NeedleRead::content_to_keep() const noexcept {
  const bool right = next_ == Next::kDone && stage_ == Stage::kScratch && whole();
  if (!right || meta_.has(kFlagHasTtl)) return std::nullopt;
  return request_.scratch.subspan(shape_.data_offset_bytes, shape_.data_bytes);
}

void NeedleRead::whole_arrived() noexcept {
  if (!judge_prefix()) return;
  if (shape_.data_bytes < direct_bytes_) {
    // The fields are longer than guessed, and their start landed in memory the client can change.
    start_suffix();
    return;
  }
  const std::uint64_t spilled = shape_.data_bytes - direct_bytes_;
  if (!judge_suffix(suffix_room().subspan(
          spilled, shape_.meta_bytes + tail_bytes(request_.record.version)))) {
    return;
  }
  const std::span<std::byte> destination = request_.destination;
  const std::span<const std::byte> rest = suffix_room().first(spilled);
  std::uint32_t crc = crc32c(destination.first(direct_bytes_));
  crc = crc32c_extend(crc, rest);
  const std::size_t fits = std::min<std::size_t>(rest.size(), destination.size() - direct_bytes_);
  if (fits > 0) std::memcpy(destination.data() + direct_bytes_, rest.data(), fits);
  finish_whole(crc);
}

void NeedleRead::start_prefix() noexcept {
  direct_bytes_ = 0;
  begin_io(Stage::kPrefix, 0);
  io_.add(prefix());
}

void NeedleRead::prefix_arrived() noexcept {
  if (judge_prefix()) start_suffix();
}

void NeedleRead::start_suffix() noexcept {
  const std::uint64_t wanted = shape_.meta_bytes + tail_bytes(request_.record.version);
  if (wanted > suffix_room().size()) {
    need_private_read();
    return;
  }
  begin_io(Stage::kSuffix, shape_.data_offset_bytes + shape_.data_bytes);
  io_.add(suffix_room().first(wanted));
}

void NeedleRead::suffix_arrived() noexcept {
  if (!judge_suffix(suffix_room().first(shape_.meta_bytes + tail_bytes(request_.record.version)))) {
    return;
  }
  if (request_.stat) {
    finish_stat();
    return;
  }
  if (direct_bytes_ > 0) {  // all of the data came with the first read
    finish_whole(crc32c(request_.destination.first(shape_.data_bytes)));
    return;
  }
  settle_range(request_.offset_bytes, request_.destination.size(), shape_.data_bytes, outcome_);
  if (outcome_.status != KELP_OK || outcome_.bytes == 0) {
    next_ = Next::kDone;
    return;
  }
  start_slice();
}

bool NeedleRead::judge_suffix(std::span<const std::byte> meta_and_tail) noexcept {
  if (meta_guess_bytes_ != nullptr && request_.record.has_data_length()) {
    // relaxed: a guess; orders nothing.
    meta_guess_bytes_->store(
        static_cast<std::uint32_t>(std::min<std::uint64_t>(
            shape_.meta_bytes, kScratchBytes - kMaxPrefix - kNeedleTailBytesMax)),
        std::memory_order_relaxed);
  }
  const kelp_status status =
      check_suffix(request_.record, meta_and_tail.first(shape_.meta_bytes),
                   meta_and_tail.subspan(shape_.meta_bytes), request_.stat, meta_, tail_);
  if (status != KELP_OK) {
    finish(status);
    return false;
  }
  if (meta_.has(kFlagCompressed)) {
    need_private_read();
    return false;
  }
  return true;
}

/// Where the next piece of the range lands. direct_bytes_ counts what has arrived of it.
std::span<std::byte> NeedleRead::slice() noexcept {
  const std::uint64_t length = std::min<std::uint64_t>(kSliceBytes, outcome_.bytes - direct_bytes_);
  return request_.destination.subspan(request_.judge_only ? 0 : direct_bytes_, length);
}

void NeedleRead::start_slice() noexcept {
  begin_io(Stage::kData, shape_.data_offset_bytes + request_.offset_bytes + direct_bytes_);
  io_.add(slice());
}

void NeedleRead::slice_arrived() noexcept {
  const std::uint64_t length = slice().size();
  const bool covers_all = outcome_.bytes == shape_.data_bytes;
  if (covers_all || request_.judge_only) crc_ = crc32c_extend(crc_, slice());
  direct_bytes_ += length;
  if (direct_bytes_ < outcome_.bytes) {
    start_slice();
    return;
  }
  outcome_.has_crc = covers_all || request_.judge_only;
  outcome_.crc32c = crc_;
  if (covers_all) {
    finish_whole(crc_);
  } else {
    start_recheck();
  }
}

void NeedleRead::start_recheck() noexcept {
  // No checksum covers a range. A server that truncates after a failed fsync uses the space again,
  // header first: if ours still stands, so did the data behind it.
  begin_io(Stage::kRecheck, 0);
  io_.add(suffix_room().first(prefix().size()));
}

void NeedleRead::recheck_arrived() noexcept {
  const bool stands = std::ranges::equal(prefix(), suffix_room().first(prefix().size()));
  if (stands) {
    next_ = Next::kDone;
  } else {
    finish(KELP_CORRUPT);
  }
}

void NeedleRead::finish_whole(std::uint32_t crc) noexcept {
  if (request_.record.body_bytes() != 0 && !checksum_matches(tail_.checksum, crc)) {
    // The client may have written there meanwhile: judge by a copy it cannot reach.
    need_private_read();
    return;
  }
  settle_range(0, request_.destination.size(), shape_.data_bytes, outcome_);
  outcome_.flags |= KELP_FLAG_CRC_VERIFIED;
  outcome_.has_crc = outcome_.bytes == shape_.data_bytes;
  outcome_.crc32c = crc;
  next_ = Next::kDone;
}

void NeedleRead::finish_stat() noexcept {
  // An empty needle has the ETag of nothing, whatever its record carries.
  const std::uint32_t crc = request_.record.body_bytes() == 0 ? 0 : tail_.checksum;
  write_stat(request_, shape_, meta_, tail_, shape_.data_bytes, crc, outcome_);
  next_ = Next::kDone;
}

}  // namespace kelp
