#include "dataplane/worker/loader.h"

#include <poll.h>
#include <pthread.h>
#include <sys/inotify.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

namespace kelp {
namespace {

constexpr std::size_t kQueueMessages = 4096;
/// A scan that was asked for comes no sooner than this after the last: askers may be many.
constexpr std::chrono::milliseconds kScanPause{20};
/// A vacuum's commit takes about a millisecond, a copy takes minutes: the pause before a volume is
/// tried again doubles from the first to the second.
constexpr std::chrono::milliseconds kFirstReopenPause{3};
constexpr std::chrono::milliseconds kLongestReopenPause{768};
constexpr std::uint64_t kInflateTurnBytes = 1 << 20;
constexpr std::size_t kIoTurnBytes = 4 << 20;
/// Private reads in progress at once; each holds a whole record in memory.
constexpr std::size_t kPrivateJobsAtOnce = 4;

void do_io(PrivateRead& read) noexcept {
  const Io& io = read.io();
  const iovec& part = *io.data();
  const ssize_t got =
      ::pread(read.request().dat_fd, part.iov_base, std::min(part.iov_len, kIoTurnBytes),
              static_cast<off_t>(io.offset_bytes));
  if (got < 0 && errno == EINTR) return;
  read.io_done(got < 0 ? -errno : got);
}

}  // namespace

Loader::Loader(LoaderConfig config, Op* ops, std::size_t op_count, Waker& worker)
    : config_(std::move(config)),
      ops_(ops),
      catalog_(config_.directories, config_.worker, config_.workers),
      worker_(worker),
      asks_(kQueueMessages),
      news_(kQueueMessages),
      wanted_(op_count),
      done_(op_count) {
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(), "kelp-loader");
}

Loader::~Loader() {
  stop_.store(true, std::memory_order_release);
  waker_.notify();
  thread_.join();
}

bool Loader::ask(Ask ask) noexcept {
  if (!asks_.try_push(std::move(ask))) return false;
  waker_.notify();
  return true;
}

bool Loader::retire(std::unique_ptr<Volume>& volume) noexcept {
  Ask ask{Ask::Kind::kRetire, {}, std::move(volume)};
  if (asks_.try_push(std::move(ask))) {
    waker_.notify();
    return true;
  }
  volume = std::move(ask.volume);
  return false;
}

void Loader::read_privately(OpIndex index) noexcept {
  wanted_.try_push(OpIndex{index});  // holds every op: never full
  waker_.notify();
}

void Loader::run() noexcept {
  watch_directories();
  while (!stop_.load(std::memory_order_acquire)) {
    take_asks();
    drain_notifications();
    const Clock::time_point now = Clock::now();
    const bool asked = wants_scan_.load(std::memory_order_relaxed);
    if (now >= next_scan_ || (asked && now >= next_scan_ - config_.rescan + kScanPause)) scan();
    start_due_opens();
    const bool opening = step_opens();
    const bool reading = step_private_reads();
    if (!opening && !reading) sleep();
  }
}

void Loader::take_asks() {
  while (std::optional<Ask> ask = asks_.try_pop()) {
    // kRetire: closing the files as the volume goes out of scope is all there is to do.
    if (ask->kind == Ask::Kind::kReopen) {
      catalog_.reopening(ask->key);
      open_again(ask->key, Clock::now());
    }
  }
}

void Loader::scan() {
  wants_scan_.store(false, std::memory_order_relaxed);
  for (const Catalog::Change& change : catalog_.scan()) {
    switch (change.kind) {
      case Catalog::Change::Kind::kOpen:
        open_again(change.key, Clock::now());
        break;
      case Catalog::Change::Kind::kUseHttp:
        tell({VolumeNews::Kind::kUseHttp, change.key, nullptr});
        break;
      case Catalog::Change::Kind::kGone:
        opens_.erase(change.key);
        due_opens_.erase(change.key);
        reopen_pauses_.erase(change.key);
        tell({VolumeNews::Kind::kGone, change.key, nullptr});
        break;
    }
  }
  next_scan_ = Clock::now() + config_.rescan;
}

void Loader::open_again(VolumeKey key, Clock::time_point when) {
  // One already under way began before this was asked for, so it may hold the old files.
  opens_.erase(key);
  due_opens_[key] = when;
}

void Loader::start_due_opens() {
  const Clock::time_point now = Clock::now();
  for (auto due = due_opens_.begin(); due != due_opens_.end();) {
    if (due->second > now) {
      ++due;
      continue;
    }
    if (auto open = catalog_.begin_open(due->first)) {
      opens_[due->first] = std::move(open);
    } else {
      tell({VolumeNews::Kind::kGone, due->first, nullptr});
    }
    due = due_opens_.erase(due);
  }
}

bool Loader::step_opens() {
  for (auto each = opens_.begin(); each != opens_.end();) {
    const VolumeKey key = each->first;
    const VolumeOpen::Turn turn = each->second->step();
    // There may be thousands: neither what is given up nor the end of the process waits for all.
    hand_back_unwanted();
    if (stop_.load(std::memory_order_acquire)) return true;
    if (turn == VolumeOpen::Turn::kMore) {
      ++each;
      continue;
    }
    const std::unique_ptr<VolumeOpen> open = std::move(each->second);
    each = opens_.erase(each);
    if (turn == VolumeOpen::Turn::kDone) {
      finish_open(key, *open);
    } else {
      fail_open(key, open->failure());
    }
  }
  if (opens_.empty()) settled_.store(true, std::memory_order_release);
  return !opens_.empty();
}

void Loader::finish_open(VolumeKey key, VolumeOpen& open) {
  std::unique_ptr<Volume> volume = open.take();
  catalog_.opened(key, *volume);
  reopen_pauses_.erase(key);
  tell({VolumeNews::Kind::kServe, key, std::move(volume)});
}

void Loader::fail_open(VolumeKey key, const OpenFailure& failure) {
  catalog_.failed(key, failure);
  switch (failure.refusal) {
    case OpenRefusal::kNotNow: {
      // Reads wait for a moment like a vacuum's commit; one that lasts is not worth waiting for.
      std::chrono::milliseconds& pause = reopen_pauses_[key];
      if (pause == kLongestReopenPause) tell({VolumeNews::Kind::kGone, key, nullptr});
      pause = std::clamp(pause * 2, kFirstReopenPause, kLongestReopenPause);
      due_opens_[key] = Clock::now() + pause;
      break;
    }
    case OpenRefusal::kUseHttp:
      tell({VolumeNews::Kind::kUseHttp, key, nullptr});
      break;
    case OpenRefusal::kBroken:
      tell({VolumeNews::Kind::kGone, key, nullptr});
      break;
  }
}

void Loader::tell(VolumeNews news) {
  // The worker always gets round to its queue; at the end of the process nobody listens any more.
  while (!news_.try_push(std::move(news))) {
    if (stop_.load(std::memory_order_acquire)) return;
    worker_.notify();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  worker_.notify();
}

void Loader::hand_back_unwanted() {
  while (const std::optional<OpIndex> index = wanted_.try_pop()) queued_.push_back(*index);
  std::erase_if(queued_, [this](OpIndex index) { return give_up(index); });
  std::erase_if(private_jobs_, [this](const std::unique_ptr<PrivateJob>& job) {
    if (!give_up(job->index)) return false;
    if (job->inflater) inflaters_.push_back(std::move(job->inflater));
    return true;
  });
}

bool Loader::step_private_reads() {
  hand_back_unwanted();
  while (private_jobs_.size() < kPrivateJobsAtOnce && !queued_.empty()) {
    private_jobs_.push_back(std::make_unique<PrivateJob>(queued_.front()));
    queued_.pop_front();
  }
  for (std::size_t i = private_jobs_.size(); i > 0; --i) {
    std::unique_ptr<PrivateJob> job = std::move(private_jobs_.front());
    private_jobs_.pop_front();
    if (step_private_read(*job)) {
      private_jobs_.push_back(std::move(job));
    } else {
      hand_back(job->index);
    }
  }
  return !private_jobs_.empty() || !queued_.empty() || !wanted_.empty();
}

/// Hands back what nobody waits for any more.
bool Loader::give_up(OpIndex index) {
  Op& op = ops_[index];
  if (!op.given_up.load(std::memory_order_relaxed)) return false;
  op.outcome = {};
  op.outcome.status = KELP_DEADLINE;
  hand_back(index);
  return true;
}

void Loader::hand_back(OpIndex index) {
  done_.try_push(OpIndex{index});
  worker_.notify();
}

bool Loader::step_private_read(PrivateJob& job) {
  Op& op = ops_[job.index];
  if (!job.memory) {
    const ReadRequest& request = op.read.request();
    const std::uint64_t needed = PrivateRead::memory_bytes(request.record);
    if (needed > config_.max_private_bytes) {
      op.outcome = {};
      op.outcome.status = KELP_USE_HTTP;
      return false;
    }
    try {
      job.memory = std::make_unique_for_overwrite<std::byte[]>(needed);
      job.inflater = take_inflater();
    } catch (const std::bad_alloc&) {
      op.outcome = {};
      op.outcome.status = KELP_UNAVAILABLE;
      return false;
    }
    job.read.start(request, {job.memory.get(), needed}, *job.inflater, config_.gzip);
    return true;
  }
  switch (job.read.next()) {
    case PrivateRead::Next::kIo:
      do_io(job.read);
      return true;
    case PrivateRead::Next::kInflate:
      job.read.inflate(kInflateTurnBytes);
      return true;
    case PrivateRead::Next::kDone:
      break;
  }
  op.outcome = job.read.outcome();
  inflaters_.push_back(std::move(job.inflater));
  return false;
}

std::unique_ptr<GzipInflater> Loader::take_inflater() {
  if (inflaters_.empty()) return std::make_unique<GzipInflater>();
  std::unique_ptr<GzipInflater> inflater = std::move(inflaters_.back());
  inflaters_.pop_back();
  return inflater;
}

void Loader::watch_directories() {
  inotify_.reset(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  if (!inotify_) return;  // the periodic scan finds everything, only later
  // No events for writes: they come by the thousand and mean nothing here.
  constexpr std::uint32_t kEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE;
  for (const std::string& path : catalog_.watched_directories()) {
    ::inotify_add_watch(inotify_.get(), path.c_str(), kEvents);
  }
}

void Loader::drain_notifications() {
  alignas(inotify_event) std::array<char, 16 * 1024> events;
  while (inotify_ && ::read(inotify_.get(), events.data(), events.size()) > 0) {
    // Whatever it says, also that it lost some: the answer is to look.
    wants_scan_.store(true, std::memory_order_relaxed);
  }
}

void Loader::sleep() {
  waker_.arm();
  const bool idle = asks_.empty() && wanted_.empty() && !stop_.load(std::memory_order_acquire);
  if (idle) {
    Clock::time_point wake_at = next_scan_;
    if (wants_scan_.load(std::memory_order_relaxed)) {
      wake_at = std::min(wake_at, next_scan_ - config_.rescan + kScanPause);
    }
    for (const auto& [key, when] : due_opens_) wake_at = std::min(wake_at, when);
    const auto pause = std::chrono::ceil<std::chrono::milliseconds>(wake_at - Clock::now());
    std::array<pollfd, 2> entries{pollfd{waker_.fd(), POLLIN, 0},
                                  pollfd{inotify_.get(), POLLIN, 0}};
    ::poll(entries.data(), entries.size(),
           static_cast<int>(std::max<std::int64_t>(pause.count(), 0)));
  }
  waker_.disarm();
}

}  // namespace kelp
