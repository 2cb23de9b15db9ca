// From a file id to bytes: volume, freshness, index, storage; and what to do when the volume
// changes meanwhile.
#include <sys/resource.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dataplane/worker/worker.h"

namespace kelp {
namespace {

constexpr std::uint8_t kMostRestarts = 4;
/// Reads of 256 KiB slices that one turn makes for one request, and for how many of those that are
/// already under way: large reads share a turn that small ones wait for.
constexpr std::uint32_t kSlicesPerTurn = 4;
constexpr std::uint32_t kReadsContinuedPerTurn = 4;

/// Between two looks at the directories for a volume that is not known.
constexpr std::uint64_t kLookPeriodUs = 50'000;
constexpr std::uint64_t kWatchfulUs = 10'000;
constexpr std::uint64_t kDistrustUs = 1'000'000;

/// One read without waiting: bytes, 0 at the end of the file, or -errno.
std::int64_t read_now(const Volume& volume, const Io& io) noexcept {
  const int flags = volume.always_in_memory() ? 0 : RWF_NOWAIT;
  while (true) {
    const ssize_t got = ::preadv2(volume.dat_fd(), io.data(), io.parts_left(),
                                  static_cast<off_t>(io.offset_bytes), flags);
    if (got >= 0) return got;
    if (errno != EINTR) return -errno;
  }
}

bool would_wait(std::int64_t result) noexcept {
  return result == -EAGAIN || result == -EOPNOTSUPP;
}

/// Voluntary context switches of this thread.
long times_slept() noexcept {
  rusage used{};
  ::getrusage(RUSAGE_THREAD, &used);
  return used.ru_nvcsw;
}

bool reads_inline(const Volume& volume) noexcept {
  return volume.always_in_memory() || volume.reads_without_waiting();
}

}  // namespace

std::uint32_t Worker::route_waiting() noexcept {
  if (routing_.empty()) return 0;
  // A new batch: every submission it holds has been copied out, so an index found current from
  // here on shows all that was acknowledged before they were submitted.
  ++batch_;
  // And a close that came before they were submitted is seen now, before any of them is answered.
  if (!closes_.empty() && (closes_bell_ == nullptr || closes_bell_->has_rung())) take_closes();
  batch_began_ = ticks_now();
  // Bounded: thousands may have waited for one volume.
  const std::uint32_t count = std::min(routing_.size(), kBatch);
  // acquire pairs with the release in set_serving(): looked at after the submissions were copied
  // out, so one that was sent after a switch was thrown finds it thrown.
  if (!live_.serving.load(std::memory_order_acquire)) [[unlikely]] {
    for (std::uint32_t i = 0; i < count; ++i) {
      const OpIndex index = routing_.pop_front();
      ops_[index].went_elsewhere = true;  // it is Kelp that is switched off, all of it
      end(index, KELP_USE_HTTP);
    }
    return count;
  }
  for (std::uint32_t i = 0; i < count; ++i) route(routing_.pop_front());
  return count;
}

void Worker::route(OpIndex index) noexcept {
  Op& op = ops_[index];
  if (unwanted(op)) {
    end(index, KELP_DEADLINE);
    return;
  }
  VolumeSlot* const chosen = choose_slot(op.submission.volume);
  if (chosen == nullptr) {
    look_around();
    end(index, KELP_UNAVAILABLE);
    return;
  }
  VolumeSlot& slot = *chosen;
  if (slot.state == SlotState::kUseHttp) {
    end(index, KELP_USE_HTTP);
    return;
  }
  if (slot.state == SlotState::kServing && !attested(slot)) {
    counters_.unattested_reads.add();
    end(index, KELP_UNAVAILABLE);
    return;
  }
  // Where its files have been replaced, that is found now, and it is loading too.
  const bool fresh = slot.state == SlotState::kServing && ensure_fresh(slot);
  if (slot.state == SlotState::kLoading && !op.went_elsewhere) {
    // Its server answers sooner than the index is loaded.
    end(index, KELP_UNAVAILABLE);
    return;
  }
  if (!fresh) {
    wait_for_volume(index);
    return;
  }
  // Tokens are the volume server's to judge.
  if (wants_token(slot, op)) {
    if (go_elsewhere(index, KELP_DENIED)) return;
    // The worker of its ring may, for one that was forwarded; and nobody while this one drains.
    end(index, op.went_elsewhere ? KELP_DENIED : KELP_USE_HTTP);
    return;
  }
  Volume& volume = *slot.volume;
  const auto location = volume.find(NeedleId{op.submission.needle});
  if (!location) {
    // Its rows cannot be read yet: that a needle is not there is more than we know.
    end(index, volume.width() == OffsetWidth::kUnknown && volume.counters().idx_bytes.load() != 0
                   ? KELP_UNAVAILABLE
                   : KELP_NOT_FOUND);
    return;
  }
  start_read(index, volume, *location);
}

/// Not for each of thousands of reads whose volume is on another host.
void Worker::look_around() noexcept {
  if (batch_began_ - last_look_ < rate_.from_us(kLookPeriodUs)) return;
  last_look_ = batch_began_;
  loader_->look_around();
}

/// With several servers on the host: the first that serves the volume now, else one that may soon.
Worker::VolumeSlot* Worker::choose_slot(std::uint32_t volume) noexcept {
  const auto found = volumes_.find(volume);
  if (found == volumes_.end()) return nullptr;
  VolumeSlot* const first = found->second.get();
  if (first->next == nullptr) [[likely]]
    return first;
  const auto rank = [this](const VolumeSlot& slot) {
    if (slot.state == SlotState::kServing) return attested(slot) ? 3 : 0;
    return slot.state == SlotState::kLoading ? 2 : 1;
  };
  VolumeSlot* best = first;
  for (VolumeSlot* slot = first; slot != nullptr; slot = slot->next.get()) {
    // A copy nobody vouches for does not stand in for one that somebody could.
    if (slot->key.server == 0 && first->key.server != 0) break;
    if (rank(*slot) > rank(*best)) best = slot;
  }
  return best;
}

bool Worker::attested(const VolumeSlot& slot) const noexcept {
  if (slot.key.server == 0) return true;
  const Attestation* attestation = slot.volume->attestation();
  return attestation != nullptr && attestation->holds(batch_began_);
}

bool Worker::wants_token(const VolumeSlot& slot, const Op& op) const noexcept {
  const bool trusted = options_.trust_local_clients && op.asker == nullptr;
  if (trusted || slot.key.server == 0) return false;
  return slot.volume->attestation()->pulse().wants_token.load(std::memory_order_relaxed);
}

bool Worker::ensure_fresh(VolumeSlot& slot) noexcept {
  if (slot.fresh_batch == batch_) return true;
  // One refresh per batch, or 32 reads of one volume would replay 32 times the rows of a turn.
  if (slot.behind_batch == batch_) return false;
  slot.volume->counters().refreshes.fetch_add(1, std::memory_order_relaxed);
  switch (slot.volume->refresh()) {
    case Volume::Freshness::kCurrent:
    case Volume::Freshness::kUndecided:
      slot.fresh_batch = batch_;
      return true;
    case Volume::Freshness::kBehind:
      slot.behind_batch = batch_;
      return false;
    case Volume::Freshness::kReplaced:
      reload(slot);
      return false;
  }
  return false;
}

void Worker::reload(VolumeSlot& slot) noexcept {
  slot.state = SlotState::kLoading;
  retire(std::move(slot.volume));
  slot.reopen_unsent = !loader_->reopen(slot.key);
}

void Worker::wait_for_volume(OpIndex index) noexcept {
  Op& op = ops_[index];
  const VolumeSlot* const slot = choose_slot(op.submission.volume);
  if (slot != nullptr && slot->state == SlotState::kServing) {
    // Only behind: the next turn replays more.
    if (ticks_now() >= op.deadline) {
      end(index, KELP_DEADLINE);
      return;
    }
    op.state = OpState::kRouting;
    routing_.push_back(index);
    return;
  }
  counters_.volume_waits.add();
  const Ticks patience =
      ticks_now() + rate_.from_us(live_.reload_wait_us.load(std::memory_order_relaxed));
  op.volume_deadline = std::min(op.deadline, patience);
  op.state = OpState::kVolumeWait;
  volume_waits_.push_back(index);
}

void Worker::start_read(OpIndex index, Volume& volume, const NeedleLocation& location) noexcept {
  Op& op = ops_[index];
  op.generation = volume.generation();
  op.record_offset_bytes = location.offset_bytes;
  volume.counters().reads.fetch_add(1, std::memory_order_relaxed);
  if (cache_ != nullptr && read_from_cache(index, location)) return;
  op.volume = &volume;
  ++volume.pins;

  ReadRequest request;
  request.record.location = location;
  request.record.needle = NeedleId{op.submission.needle};
  request.record.cookie = Cookie{op.submission.cookie};
  request.record.version = volume.version();
  request.dat_fd = volume.dat_fd();
  request.stat = op.submission.op == OpCode::kStat;
  request.offset_bytes = request.stat ? 0 : op.submission.offset_bytes;
  request.destination = op.buffer;
  request.wrap_bytes = volume.wrap_bytes();
  request.judge_only =
      op.asker != nullptr && !request.stat && op.asker->sends_files() &&
      std::min<std::size_t>(op.buffer.size(), request.record.body_bytes()) >= kSentFromFileBytes;
  // Nobody else uses it before advance() returns. What an adapter takes is read to where it takes
  // it from: nobody else writes there, and no processor copies it.
  const bool for_adapter = op.asker != nullptr && !op.asker->sends_files();
  if (reads_inline(volume) && !for_adapter)
    request.scratch = std::span(private_memory_.get(), kCopiedBytes);
  op.read.start(request, volume.meta_guess_bytes());
  advance(index);
}

namespace {

NeedleCache::Key key_of(const Op& op, const NeedleLocation& location) noexcept {
  return {op.generation, location.offset_bytes, op.submission.needle, op.submission.cookie,
          location.body_bytes};
}

}  // namespace

/// False: it is not there, or not for this op.
bool Worker::read_from_cache(OpIndex index, const NeedleLocation& location) noexcept {
  Op& op = ops_[index];
  if (op.submission.op != OpCode::kRead) return false;
  const auto content = cache_->find(key_of(op, location));
  if (!content) return false;
  const Touch touch = begin_touch(op);
  if (op.segment != nullptr && op.segment->distrusted(touch.start)) [[unlikely]]
    return false;
  ReadOutcome outcome;
  settle_range(op.submission.offset_bytes, op.buffer.size(), content->bytes.size(), outcome);
  if (outcome.status == KELP_OK) {
    outcome.flags |= KELP_FLAG_CRC_VERIFIED;
    outcome.has_crc = outcome.bytes == content->bytes.size();
    outcome.crc32c = content->crc32c;
    if (outcome.bytes != 0) {
      std::memcpy(op.buffer.data(), content->bytes.data() + op.submission.offset_bytes,
                  outcome.bytes);
    }
  }
  end_touch(op, touch);
  counters_.cache_hits.add();
  op.path = KELP_PATH_CACHE;
  end(index, outcome);
  return true;
}

void Worker::keep_content(const Op& op) noexcept {
  if (op.submission.op != OpCode::kRead) return;
  const auto content = op.read.content_to_keep();
  if (!content) return;
  const NeedleCache::Key key = key_of(op, op.read.request().record.location);
  if (cache_->offer(key, {*content, op.read.outcome().crc32c})) counters_.cache_kept.add();
}

void Worker::advance(OpIndex index) noexcept {
  Op& op = ops_[index];
  for (std::uint32_t ios = 0; op.read.next() == NeedleRead::Next::kIo; ++ios) {
    if (ios == kSlicesPerTurn) {
      op.read.forgo_scratch();
      op.state = OpState::kReading;
      reading_.push_back(index);
      return;
    }
    if (!reads_inline(*op.volume) || !read_slice(op)) {
      op.read.forgo_scratch();
      counters_.storage_waits.add();
      op.state = OpState::kStorageWait;
      op.given_up.store(false, std::memory_order_relaxed);
      storage_waits_.push_back(index);
      storage_->submit(index);
      return;
    }
  }
  if (op.read.next() == NeedleRead::Next::kNeedsPrivateRead) {
    read_privately(index);
    return;
  }
  counters_.storage_inline.add();
  if (cache_ != nullptr) keep_content(op);
  read_done(index, op.read.outcome());
}

/// One step of a read, without waiting. False: it would have to wait, and nothing has happened.
/// Copying cached bytes never sleeps, unless the client keeps its memory from being faulted in, as
/// by punching holes into it: the kernel lets the fault wait until that has ended. Such a client's
/// reads are the storage thread's for a while. To ask the kernel costs as much as half a read: it
/// is asked after a read that took suspiciously long, and about each read for a while only once
/// this thread is seen to have slept since it was asked last.
bool Worker::read_slice(Op& op) noexcept {
  const Touch touch = begin_touch(op);
  if (op.segment != nullptr && op.segment->distrusted(touch.start)) [[unlikely]]
    return false;
  const std::int64_t result = read_now(*op.volume, op.read.io());
  if (would_wait(result)) return false;
  op.read.io_done(result);  // touches the client's memory, too
  end_touch(op, touch);
  return true;
}

Worker::Touch Worker::begin_touch(const Op& op) const noexcept {
  Touch touch;
  touch.start = ticks_now();
  touch.watchful = op.segment != nullptr && touch.start < watchful_until_;
  if (touch.watchful) touch.slept_before = times_slept();
  return touch;
}

void Worker::end_touch(const Op& op, const Touch& touch) noexcept {
  const Ticks end = ticks_now();
  if (end - touch.start > suspicious_) [[unlikely]] {
    const long slept = times_slept();
    if (slept_ && *slept_ != slept) watchful_until_ = end + rate_.from_us(kWatchfulUs);
    slept_ = slept;
  }
  if (touch.watchful && times_slept() != touch.slept_before) [[unlikely]] {
    counters_.faults_slept_over.add();
    rationed_until_ = end + rate_.from_us(kDistrustUs);
    op.segment->distrust(rationed_until_);
  }
}

std::uint32_t Worker::continue_reads() noexcept {
  const std::uint32_t count = std::min(reading_.size(), kReadsContinuedPerTurn);
  const Ticks now = count == 0 ? 0 : ticks_now();
  for (std::uint32_t i = 0; i < count; ++i) {
    const OpIndex index = reading_.pop_front();
    // Between two slices nothing writes into the buffer, so the deadline is final.
    if (now >= ops_[index].deadline || unwanted(ops_[index])) {
      end(index, KELP_DEADLINE);
    } else {
      advance(index);
    }
  }
  return count;
}

std::uint32_t Worker::take_finished_reads() noexcept {
  std::uint32_t count = 0;
  while (const std::optional<OpIndex> index = storage_->take_done()) {
    storage_waits_.remove(*index);
    ++count;
    switch (ops_[*index].read.next()) {
      case NeedleRead::Next::kIo:
        counters_.given_up.add();
        end(*index, KELP_DEADLINE);
        break;
      case NeedleRead::Next::kNeedsPrivateRead:
        read_privately(*index);
        break;
      case NeedleRead::Next::kDone:
        read_done(*index, ops_[*index].read.outcome());
        break;
    }
  }
  while (const std::optional<OpIndex> index = loader_->take_done()) {
    private_waits_.remove(*index);
    ++count;
    // No private read ends so by itself.
    if (ops_[*index].outcome.status == KELP_DEADLINE) counters_.given_up.add();
    read_done(*index, ops_[*index].outcome);
  }
  return count;
}

void Worker::read_privately(OpIndex index) noexcept {
  Op& op = ops_[index];
  if (unwanted(op)) {
    end(index, KELP_DEADLINE);
    return;
  }
  if (try_private_inline(op, op.outcome)) {
    counters_.private_inline.add();
    read_done(index, op.outcome);
    return;
  }
  counters_.private_handed_over.add();
  op.state = OpState::kPrivateWait;
  op.given_up.store(false, std::memory_order_relaxed);
  private_waits_.push_back(index);
  loader_->read_privately(index);
}

bool Worker::try_private_inline(Op& op, ReadOutcome& outcome) noexcept {
  const ReadRequest& request = op.read.request();
  if (PrivateRead::memory_bytes(request.record) > kInlinePrivateBytes ||
      !reads_inline(*op.volume)) {
    return false;
  }
  private_read_->start(request, std::span(private_memory_.get(), kInlinePrivateBytes), inflater_,
                       options_.loader.gzip);
  while (private_read_->next() == PrivateRead::Next::kIo) {
    const std::int64_t result = read_now(*op.volume, private_read_->io());
    if (would_wait(result)) return false;
    private_read_->io_done(result);
  }
  if (private_read_->next() == PrivateRead::Next::kInflate) {
    private_read_->inflate(live_.inline_inflate_bytes.load(std::memory_order_relaxed));
  }
  // It grows larger than it looked: the loader starts over, in turns.
  if (private_read_->next() != PrivateRead::Next::kDone) return false;
  outcome = private_read_->outcome();
  return true;
}

void Worker::read_done(OpIndex index, const ReadOutcome& outcome) noexcept {
  Op& op = ops_[index];
  // Storage found no memory behind the buffer: as good as a fault of our own.
  if (outcome.status == KELP_INVALID && op.segment != nullptr) [[unlikely]]
    op.segment->condemn();
  if (unwanted(op)) {
    end(index, KELP_DEADLINE);
    return;
  }
  // A checksum over all of it proves the bytes; a part of it, or trouble, may come from space that
  // was used anew since the index was looked at.
  const bool proven = (outcome.flags & KELP_FLAG_CRC_VERIFIED) != 0;
  const bool partial = outcome.status == KELP_OK && !proven && op.submission.op == OpCode::kRead;
  if (partial || outcome.status == KELP_CORRUPT) {
    if (const Since since = since_started(op); since != Since::kSame) {
      restart(index, since);
      return;
    }
  }
  if (outcome.status == KELP_CORRUPT) {
    op.volume->counters().corrupt.fetch_add(1, std::memory_order_relaxed);
  }
  end(index, outcome);
}

Worker::Since Worker::since_started(Op& op) noexcept {
  VolumeSlot* const found = find_slot(op.volume->key());
  if (found == nullptr) return Since::kChanged;
  VolumeSlot& slot = *found;
  if (slot.state != SlotState::kServing || slot.volume.get() != op.volume) return Since::kChanged;
  switch (slot.volume->refresh()) {
    case Volume::Freshness::kCurrent:
      break;
    case Volume::Freshness::kBehind:
      return Since::kBehind;
    case Volume::Freshness::kUndecided:
    case Volume::Freshness::kReplaced:
      return Since::kChanged;
  }
  if (slot.volume->generation() != op.generation) return Since::kChanged;
  // What an index row pointed at stays where it was until the generation changes; a row that was
  // replaced meanwhile explains trouble all the same.
  const auto now = slot.volume->find(NeedleId{op.submission.needle});
  return now && *now == op.read.request().record.location ? Since::kSame : Since::kChanged;
}

void Worker::restart(OpIndex index, Since why) noexcept {
  Op& op = ops_[index];
  unpin(op);
  // An index that is behind says nothing yet; only the deadline bounds waiting for it.
  if (why == Since::kChanged && ++op.restarts > kMostRestarts) {
    end(index, KELP_UNAVAILABLE);
    return;
  }
  counters_.restarts.add();
  if (ticks_now() >= op.deadline) {
    end(index, KELP_DEADLINE);
    return;
  }
  op.state = OpState::kRouting;
  routing_.push_back(index);
}

void Worker::unpin(Op& op) noexcept {
  if (op.volume == nullptr) return;
  --op.volume->pins;
  op.volume = nullptr;
}

}  // namespace kelp
