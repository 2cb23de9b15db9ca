#include "dataplane/worker/worker.h"

#include <pthread.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <new>

namespace kelp {
namespace {

constexpr std::size_t kCommandQueue = 16384;
/// A client that comes or goes with 64 rings is 64 commands, of a few system calls each.
constexpr std::uint32_t kCommandsPerTurn = 1;
/// Longest sleep: nothing depends on it, but a thread that looks around once in a while is easier
/// to trust.
constexpr int kIdleSleepMs = 500;
/// While a client's requests may lie in its rings until its next ration.
constexpr int kRationedSleepMs = 10;
/// Idle turns between two looks at the clock for timers and heartbeats. A turn with work looks at
/// it anyway, and may take milliseconds: 256 of those would be seconds without either.
constexpr std::uint64_t kTurnsPerClock = 256;
constexpr std::uint64_t kTimerPeriodUs = 1000;
/// A slice of 256 KiB takes about as long; a sleep is dearer.
constexpr std::uint64_t kSuspiciousUs = 10;
/// Connections to other hosts that may be on their way to a worker, or have ended.
constexpr std::size_t kMostLinks = 1024;
constexpr std::uint64_t kSliceNs = 100'000;
/// Who hears of something more often than this, waits for the next by spinning; and so long for an
/// answer of another host.
constexpr std::uint64_t kMostSpinUs = 400;
constexpr std::uint64_t kMostSpinForAnswerUs = 10'000;

/// As in <linux/sched/types.h>, which does not go together with <sched.h>.
struct SchedAttributes {
  std::uint32_t size, policy;
  std::uint64_t flags;
  std::int32_t nice;
  std::uint32_t priority;
  std::uint64_t runtime_ns, deadline_ns, period_ns;
};
static_assert(sizeof(SchedAttributes) == 48);

/// A worker that is woken takes its CPU from whoever computes there at once, and not when that
/// one's slice of some milliseconds is over. Kernels before 6.12 do not know the wish.
void ask_for_short_slices() noexcept {
  SchedAttributes wish{};
  if (::syscall(SYS_sched_getattr, 0, &wish, sizeof wish, 0) != 0) return;
  wish.runtime_ns = kSliceNs;
  ::syscall(SYS_sched_setattr, 0, &wish, 0);
}

std::uint32_t usable_cpus() noexcept {
  cpu_set_t cpus;
  return ::sched_getaffinity(0, sizeof cpus, &cpus) == 0
             ? static_cast<std::uint32_t>(CPU_COUNT(&cpus))
             : 1;
}

}  // namespace

Worker::Worker(WorkerOptions options)
    : options_(std::move(options)),
      has_cpus_to_spare_(usable_cpus() > options_.workers),
      rate_(TickRate::instance()),
      ops_(std::make_unique<Op[]>(options_.ops)),
      free_(ops_.get()),
      routing_(ops_.get()),
      volume_waits_(ops_.get()),
      reading_(ops_.get()),
      storage_waits_(ops_.get()),
      private_waits_(ops_.get()),
      forwarded_(ops_.get()),
      remote_waits_(ops_.get()),
      peer_waits_(ops_.get()),
      suspicious_(rate_.from_us(kSuspiciousUs)),
      cache_(options_.cache_bytes == 0 ? nullptr
                                       : std::make_unique<NeedleCache>(options_.cache_bytes)),
      hedge_rooms_(options_.hedge_after_us == 0 ? nullptr : std::make_unique<HedgeRooms>()),
      private_read_(std::make_unique<PrivateRead>()),
      private_memory_(std::make_unique<std::byte[]>(kInlinePrivateBytes)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)),
      commands_(kCommandQueue),
      reports_(kCommandQueue),
      new_links_(kMostLinks),
      ended_links_(kMostLinks) {
  retune(options_);
  for (OpIndex i = 0; i < options_.ops; ++i) free_.push_back(i);
  storage_ = std::make_unique<StorageThread>(ops_.get(), options_.ops, waker_);
  loader_ = std::make_unique<Loader>(options_.loader, ops_.get(), options_.ops, waker_);
  if (options_.remote) remote_ = std::make_unique<RemoteLane>(options_.ops, waker_);
}

Worker::~Worker() {
  stop();
}

Result<void> Worker::start(Waker& control) {
  control_ = &control;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = nullptr;
  if (!epoll_ || ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, waker_.fd(), &event) != 0) {
    return system_error("cannot create the worker's epoll set");
  }
  // Closes are rare, and who sleeps through one leaves the control thread asking late.
  if (closes_.fd() >= 0) ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, closes_.fd(), &event);
  thread_ = std::thread([this] { run(); });
  ::pthread_setname_np(thread_.native_handle(),
                       ("kelp-worker-" + std::to_string(options_.index)).c_str());
  if (options_.cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(static_cast<unsigned>(options_.cpu), &set);
    if (const int rc = ::pthread_setaffinity_np(thread_.native_handle(), sizeof set, &set);
        rc != 0) {
      stop();
      return system_error("cannot pin a worker to CPU " + std::to_string(options_.cpu) +
                              "; choose one of those this process may use",
                          rc);
    }
  }
  return {};
}

void Worker::stop() {
  if (!thread_.joinable()) return;
  stop_.store(true, std::memory_order_release);
  waker_.notify();
  thread_.join();
}

bool Worker::command(const WorkerCommand& command) noexcept {
  if (!commands_.try_push(WorkerCommand(command))) return false;
  waker_.notify();
  return true;
}

void Worker::retune(const WorkerOptions& options) noexcept {
  live_.spin.store(rate_.from_us(options.spin_us), std::memory_order_relaxed);
  live_.reload_wait_us.store(options.reload_wait_us, std::memory_order_relaxed);
  live_.inline_inflate_bytes.store(options.inline_inflate_bytes, std::memory_order_relaxed);
}

std::uint64_t Worker::cpu_time_ns() const noexcept {
  clockid_t clock;
  timespec used{};
  auto& thread = const_cast<std::thread&>(thread_);
  if (!thread.joinable() || ::pthread_getcpuclockid(thread.native_handle(), &clock) != 0 ||
      ::clock_gettime(clock, &used) != 0) {
    return 0;
  }
  return static_cast<std::uint64_t>(used.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(used.tv_nsec);
}

void Worker::run() noexcept {
  ask_for_short_slices();
  while (!stop_.load(std::memory_order_relaxed)) {
    if (poll_once()) continue;
    cpu_relax();
    if (options_.always_poll) continue;
    if (may_sleep()) sleep();
  }
  peers_.close();
}

/// After a while without work; at once where all that is awaited comes from other hosts, and so
/// has everything for a while: whoever works on it may want this CPU.
bool Worker::may_sleep() const noexcept {
  const Ticks spin = live_.spin.load(std::memory_order_relaxed);
  const Ticks now = ticks_now();
  if (now - last_work_ > spin && now - last_work_ < worthwhile_spin()) {
    ::sched_yield();  // longer than was asked for: not at the expense of others
    return false;
  }
  return now - last_work_ > spin || (!remote_waits_.empty() && now - last_answer_ > spin);
}

/// To spin until what comes over links is here is cheaper than to arm everything and be woken,
/// where it comes soon: an answer that is awaited, or something else that has come in short
/// intervals. Not where workers have no CPU that others could use meanwhile.
Ticks Worker::worthwhile_spin() const noexcept {
  if (!has_cpus_to_spare_) return 0;
  const Ticks most = rate_.from_us(kMostSpinForAnswerUs);
  const bool soon = !peer_waits_.empty() && typical_answer_ < most;
  return std::max(short_gap_, soon ? std::min(2 * typical_answer_, most) : 0);
}

void Worker::sleep() noexcept {
  const Ticks idle_since = last_work_;
  peers_.arm(true);
  waker_.arm();
  for (ServerRing* ring : rings_) {
    if (!ring->severed()) ring->arm_sleep();
  }
  // Everything that could have come before the flags were up is found now.
  if (!poll_once() && !stop_.load(std::memory_order_acquire)) {
    counters_.sleeps.add();
    slept_.reset();
    std::array<epoll_event, 32> events;
    // Ring eventfds are edge-triggered and never read: a client can fill its counter, and only
    // loses its own wake-ups. Which ones fired does not matter, the loop looks at all rings.
    ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), sleep_timeout_ms());
  }
  waker_.disarm();
  peers_.arm(false);
  for (ServerRing* ring : rings_) {
    if (!ring->severed()) ring->disarm_sleep();
  }
  last_work_ = ticks_now();
  const Ticks gap = last_work_ - idle_since;
  const Ticks most = rate_.from_us(kMostSpinUs);
  short_gap_ = peers_.any() && gap < most ? std::min(2 * gap, most) : 0;
  // What it was woken for first.
  if (!poll_once()) do_periodic_work();
}

int Worker::sleep_timeout_ms() const noexcept {
  const bool timers = !volume_waits_.empty() || !storage_waits_.empty() ||
                      !private_waits_.empty() || !forwarded_.empty() || !remote_waits_.empty() ||
                      !peer_waits_.empty() || !retired_.empty() || !leaving_.empty() ||
                      (draining_ && !drained_reported_) || load_ != nullptr;
  if (timers) return 1;
  if (ticks_now() < rationed_until_) return kRationedSleepMs;
  return rings_.empty() ? kIdleSleepMs : static_cast<int>(kHeartbeatPeriodMs);
}

std::uint32_t Worker::take_messages() noexcept {
  std::uint32_t taken = 0;
  for (; taken < kCommandsPerTurn; ++taken) {
    const std::optional<WorkerCommand> command = commands_.try_pop();
    if (!command) break;
    take_command(*command);
  }
  for (; std::optional<VolumeNews> news = loader_->take_news(); ++taken) {
    take_news(std::move(*news));
  }
  return taken;
}

void Worker::take_command(const WorkerCommand& command) noexcept {
  switch (command.kind) {
    case WorkerCommand::Kind::kAddRing:
      add_ring(command.ring);
      return;
    case WorkerCommand::Kind::kRemoveRing:
      remove_ring(command.ring);
      return;
    case WorkerCommand::Kind::kGenerate:
      load_ = command.load;
      load_->begin(ticks_now());
      return;
    case WorkerCommand::Kind::kDrain:
      draining_ = true;
      peers_.drain();
      for (ServerRing* ring : rings_) {
        if (!ring->severed()) ring->set_state(RingState::kDraining);
      }
      return;
  }
}

void Worker::add_ring(ServerRing* ring) noexcept {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  event.data.ptr = ring;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, ring->worker_wake_fd(), &event);
  if (draining_) ring->set_state(RingState::kDraining);
  ring->beat();
  ring->show_cpu(cpu_);
  rings_.push_back(ring);
  ClientShare& share = ring->share();
  if (share.rings.empty()) shares_.push_back(&share);
  share.rings.push_back(ring);
  divide_ops();
}

void Worker::remove_ring(ServerRing* ring) noexcept {
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, ring->worker_wake_fd(), nullptr);
  std::erase(rings_, ring);
  ClientShare& share = ring->share();
  std::erase(share.rings, ring);
  if (share.rings.empty()) std::erase(shares_, &share);
  divide_ops();
  ring->sever();
  leaving_.push_back(ring);
  finish_removals();
}

void Worker::divide_ops() noexcept {
  // An eighth, though a quarter is kept: a client may have one more than its share at a time.
  const std::size_t clients = std::max<std::size_t>(shares_.size(), 1);
  scarce_requests_ =
      static_cast<std::uint32_t>(std::max<std::size_t>(options_.ops / 8 / clients, 1));
}

void Worker::finish_removals() noexcept {
  std::erase_if(leaving_, [this](ServerRing* ring) {
    return ring->in_flight() == 0 && report(WorkerReport::Kind::kRingRemoved, ring);
  });
}

/// False: the queue is full. A removal and the end of a drain are said again later; of a broken
/// ring the control thread then hears nothing, and its client is cut off all the same.
bool Worker::report(WorkerReport::Kind kind, ServerRing* ring) noexcept {
  const bool told = reports_.try_push({kind, ring});
  if (control_ != nullptr) control_->notify();
  return told;
}

Worker::VolumeSlot* Worker::find_slot(VolumeKey key) noexcept {
  const auto found = volumes_.find(static_cast<std::uint32_t>(key.id));
  if (found == volumes_.end()) return nullptr;
  VolumeSlot* slot = found->second.get();
  while (slot != nullptr && slot->key != key) slot = slot->next.get();
  return slot;
}

Worker::VolumeSlot& Worker::make_slot(VolumeKey key) noexcept {
  // Server 0 wraps round to the end of the list.
  const auto rank = [](const VolumeKey& of) { return of.server - 1; };
  std::unique_ptr<VolumeSlot>* place = &volumes_[static_cast<std::uint32_t>(key.id)];
  while (*place != nullptr && rank((*place)->key) < rank(key)) place = &(*place)->next;
  auto slot = std::make_unique<VolumeSlot>();
  slot->key = key;
  slot->next = std::move(*place);
  *place = std::move(slot);
  return **place;
}

void Worker::drop_slot(VolumeKey key) noexcept {
  const auto found = volumes_.find(static_cast<std::uint32_t>(key.id));
  if (found == volumes_.end()) return;
  std::unique_ptr<VolumeSlot>* place = &found->second;
  while (*place != nullptr && (*place)->key != key) place = &(*place)->next;
  if (*place == nullptr) return;
  retire(std::move((*place)->volume));
  *place = std::move((*place)->next);
  if (found->second == nullptr) volumes_.erase(found);
}

void Worker::take_news(VolumeNews news) noexcept {
  if (news.kind == VolumeNews::Kind::kGone) {
    drop_slot(news.key);
  } else {
    VolumeSlot* slot = find_slot(news.key);
    if (slot == nullptr) slot = &make_slot(news.key);
    retire(std::move(slot->volume));
    const bool serve = news.kind == VolumeNews::Kind::kServe;
    slot->state = serve ? SlotState::kServing : SlotState::kUseHttp;
    slot->volume = std::move(news.volume);
    slot->fresh_batch = 0;
    if (serve && slot->volume->attestation() != nullptr) {
      watch_closes(*slot->volume);
      if (control_ != nullptr) control_->notify();
    }
  }
  // Those that waited for this volume are routed again, and find out.
  for (OpIndex each = volume_waits_.first(); each != kNoOp;) {
    const OpIndex index = each;
    each = volume_waits_.after(each);
    if (ops_[index].submission.volume != static_cast<std::uint32_t>(news.key.id)) continue;
    volume_waits_.remove(index);
    ops_[index].state = OpState::kRouting;
    routing_.push_back(index);
  }
}

void Worker::retire(std::unique_ptr<Volume> volume) noexcept {
  if (volume == nullptr) return;
  closes_.remove(*volume);
  if (volume->pins != 0 || !loader_->retire(volume)) retired_.push_back(std::move(volume));
}

void Worker::watch_closes(const Volume& volume) noexcept {
  if (closes_bell_ == nullptr && closes_.fd() >= 0) {
    try {
      closes_bell_ = Bell::on(closes_.fd());
    } catch (const std::bad_alloc&) {
      // Then the kernel is asked for each batch.
    }
  }
  closes_.add(volume);
}

void Worker::take_closes() noexcept {
  if (closes_bell_ != nullptr) closes_bell_->hush();
  const std::uint32_t count = closes_.drain();
  if (count == 0) return;
  counters_.revocations.add(count);
  if (control_ != nullptr) control_->notify();
}

void Worker::show_cpu() noexcept {
  const auto cpu = static_cast<std::uint32_t>(::sched_getcpu());
  if (cpu == cpu_) return;
  cpu_ = cpu;
  for (ServerRing* ring : rings_) {
    if (!ring->severed()) ring->show_cpu(cpu);
  }
}

void Worker::do_periodic_work() noexcept {
  show_cpu();
  if (!closes_.empty()) take_closes();
  const Ticks now = ticks_now();
  if (now - last_beat_ > rate_.from_us(kHeartbeatPeriodMs * 1000 / 2)) {
    last_beat_ = now;
    for (ServerRing* ring : rings_) {
      if (!ring->severed()) ring->beat();
    }
    break_condemned();
  }
  if (now - last_timers_ < rate_.from_us(kTimerPeriodUs)) return;
  last_timers_ = now;
  end_overdue(volume_waits_, now);
  end_overdue(reading_, now);
  end_overdue(storage_waits_, now);
  end_overdue(private_waits_, now);
  end_overdue(forwarded_, now);
  end_overdue(remote_waits_, now);
  let_go_overdue(now);
  if (peers_.any()) sweep_links();
  cancel_abandoned();
  finish_removals();
  for (auto& [id, first] : volumes_) {
    for (VolumeSlot* slot = first.get(); slot != nullptr; slot = slot->next.get()) {
      if (slot->reopen_unsent) slot->reopen_unsent = !loader_->reopen(slot->key);
    }
  }
  std::erase_if(retired_, [this](std::unique_ptr<Volume>& volume) {
    return volume->pins == 0 && loader_->retire(volume);
  });
  const bool idle = free_.size() == options_.ops;
  if (draining_ && idle && !drained_reported_) {
    drained_reported_ = report(WorkerReport::Kind::kDrained, nullptr);
  }
}

/// Cuts off clients that took pages out of their memory.
void Worker::break_condemned() noexcept {
  for (ClientShare* share : shares_) {
    bool found = false;
    for (ServerRing* ring : share->rings) {
      if (ring->severed() || !ring->client().segment->condemned()) continue;
      found = true;
      break_ring(*ring);
    }
    if (found) counters_.clients_condemned.add();
  }
}

void Worker::end_overdue(OpList& list, Ticks now) noexcept {
  for (OpIndex each = list.first(); each != kNoOp;) {
    const OpIndex index = each;
    each = list.after(each);
    Op& op = ops_[index];
    if (op.state == OpState::kVolumeWait) {
      const bool dropped = unwanted(op);
      if (now < op.volume_deadline && !dropped) continue;
      list.remove(index);
      end(index, now < op.deadline && !dropped ? KELP_UNAVAILABLE : KELP_DEADLINE);
    } else if (op.state == OpState::kReading) {
      if (now < op.deadline) continue;
      list.remove(index);
      end(index, KELP_DEADLINE);  // between two slices: nothing writes into the buffer
    } else {
      if (!op.answered && now >= op.deadline) answer_held(op);
      if (unwanted(op)) op.given_up.store(true, std::memory_order_relaxed);
    }
  }
}

bool Worker::poll_once() noexcept {
  // Messages count as work: a worker about to sleep looks again at a ring it has just been given,
  // since that ring's flag was not up when the others' were.
  std::uint32_t work = take_messages();
  if (!outgoing_.empty()) [[unlikely]]
    work += take_forwarded();
  if (!remote_waits_.empty()) [[unlikely]]
    work += take_remote();
  work += take_links();
  if (load_ != nullptr) [[unlikely]]
    work += generate();
  work += drain_submissions();
  work += take_finished_reads();
  work += route_waiting();
  work += continue_reads();
  const bool worked = work != 0;
  if (worked) last_work_ = ticks_now();
  const bool due = worked ? last_work_ - last_timers_ >= rate_.from_us(kTimerPeriodUs)
                          : ++idle_turns_ % kTurnsPerClock == 0;
  // Before publish(): what it completes must not wait for a turn that comes after a sleep.
  if (due) [[unlikely]]
    do_periodic_work();
  publish();
  const bool unsent = peers_.any() && peers_.flush();
  counters_.polls.add();
  if (!worked && !unsent) counters_.idle_polls.add();
  return worked || unsent;
}

}  // namespace kelp
