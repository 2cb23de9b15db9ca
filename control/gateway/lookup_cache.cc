#include "control/gateway/lookup_cache.h"

#include <algorithm>
#include <utility>

namespace kelp {
namespace {

/// How long "no such volume" and "no master answers" are believed, and how long the masters are
/// left alone about a volume after none of them answered.
constexpr std::chrono::milliseconds kPause{1000};

/// How long masters that know a volume no more are not believed: its servers know best.
constexpr std::chrono::seconds kForgetAfter{60};

double seconds(LookupCache::Clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

}  // namespace

LookupCache::LookupCache(Options options, Ask ask)
    : options_(std::move(options)),
      ask_(std::move(ask)),
      masters_(options_.masters, options_.https) {}

void LookupCache::find(VolumeId volume, Clock::time_point now, Clock::time_point not_before,
                       Done done) {
  Entry& entry = use(volume);
  // From launch() on the entry may be gone: what it calls may answer at once.
  if (const auto answer = usable(entry, now, not_before)) {
    if (wants_refresh(entry, now)) launch(volume, entry, now);
    return done(*answer);
  }
  entry.waiters.push_back({not_before, std::move(done)});
  if (entry.flight) {
    ++coalesced_;
    return;
  }
  launch(volume, entry, std::max(now, not_before));
  trim();
}

LookupCache::Entry& LookupCache::use(VolumeId volume) {
  Entry& entry = entries_[volume];
  idle_.erase(entry.used);
  entry.used = ++uses_;
  if (!entry.flight) idle_.emplace(entry.used, volume);
  return entry;
}

std::shared_ptr<const LookupCache::Answer> LookupCache::usable(const Entry& entry,
                                                               Clock::time_point now,
                                                               Clock::time_point not_before) const {
  if (entry.answer == nullptr) return nullptr;
  const bool known = entry.answer->state == State::kKnown;
  const auto believed = known ? options_.ttl : std::min(options_.ttl, kPause);
  if (entry.answer->asked >= not_before && now - entry.answer->asked < believed) {
    return entry.answer;
  }
  // The masters were asked lately and none answered: nobody waits for that to happen again.
  const bool in_vain = entry.failed && *entry.failed >= not_before;
  return known && in_vain && now - *entry.failed < options_.ttl ? entry.answer : nullptr;
}

bool LookupCache::wants_refresh(const Entry& entry, Clock::time_point now) const {
  if (entry.flight || entry.answer->state != State::kKnown) return false;
  if (entry.failed && now - *entry.failed < kPause) return false;
  return now - entry.answer->asked >= options_.ttl / 2;
}

void LookupCache::launch(VolumeId volume, Entry& entry, Clock::time_point started) {
  idle_.erase(entry.used);
  Flight& flight = entry.flight.emplace(started);
  flight.left.assign(masters_.order().rbegin(), masters_.order().rend());
  ask_next(volume, entry);
}

void LookupCache::ask_next(VolumeId volume, Entry& entry) {
  Flight& flight = *entry.flight;
  if (flight.left.empty()) return land_without_location(volume, entry);
  const std::size_t master = flight.left.back();
  flight.left.pop_back();
  const std::uint64_t question = ++questions_;
  flight.question = question;
  masters_.asked(master);
  ask_({.url = masters_.lookup_url(master, volume),
        .deadline = options_.master_timeout,
        .max_body_bytes = kMaxLookupBytes},
       [this, volume, master, question](const HttpAnswer& answer) {
         take(volume, master, question, answer);
       });
}

void LookupCache::take(VolumeId volume, std::size_t master, std::uint64_t question,
                       const HttpAnswer& answer) {
  const auto found = entries_.find(volume);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  if (!entry.flight || entry.flight->question != question) return;
  auto parsed = answer.status == 0 ? Result<Answer>(plain_error(answer.error))
                                   : parse_lookup(answer.status, answer.body);
  if (!parsed) {
    masters_.failed(master, parsed.error().what);
    std::string& failures = entry.flight->failures;
    if (!failures.empty()) failures += "; ";
    failures += masters_.reports()[master].url + ": " + parsed.error().what;
    return ask_next(volume, entry);
  }
  masters_.answered(master);
  if (parsed->state == State::kKnown) {
    masters_.prefer(master);
    return land(volume, entry, std::move(*parsed));
  }
  if (!entry.flight->unknown) entry.flight->unknown = std::move(*parsed);
  ask_next(volume, entry);
}

void LookupCache::land_without_location(VolumeId volume, Entry& entry) {
  if (entry.flight->unknown) return land(volume, entry, std::move(*entry.flight->unknown));
  Answer answer;
  answer.error = masters_.reports().empty() ? "no master is configured"
                                            : "no master answers: " + entry.flight->failures;
  land(volume, entry, std::move(answer));
}

void LookupCache::land(VolumeId volume, Entry& entry, Answer answer) {
  answer.asked = entry.flight->started;
  entry.flight.reset();
  idle_.emplace(entry.used, volume);
  const auto ready = take_ready(entry, answer.asked);
  const auto told = keep(entry, std::move(answer));
  if (!entry.waiters.empty()) {
    const auto next = std::ranges::max(entry.waiters, {}, &Waiter::earliest).earliest;
    launch(volume, entry, next);  // from here on the entry may be gone
  }
  trim();
  for (const Done& done : ready) done(*told);
}

/// Who asked for something younger than this flight stays, and waits for another one.
std::vector<LookupCache::Done> LookupCache::take_ready(Entry& entry, Clock::time_point started) {
  std::vector<Done> ready;
  std::vector<Waiter> others;
  for (Waiter& waiter : entry.waiters) {
    if (waiter.earliest > started) {
      others.push_back(std::move(waiter));
    } else {
      ready.push_back(std::move(waiter.done));
    }
  }
  entry.waiters = std::move(others);
  return ready;
}

/// Answers with what is to be told now: the last known servers where no master answers.
std::shared_ptr<const LookupCache::Answer> LookupCache::keep(Entry& entry, Answer answer) {
  entry.failed.reset();
  const bool known = entry.answer != nullptr && entry.answer->state == State::kKnown;
  // Masters that have all been started anew know no volume until its servers have reported.
  const bool forgotten = answer.state == State::kUnknownVolume && known &&
                         answer.asked - entry.answer->asked < kForgetAfter;
  if (answer.state == State::kNoMaster || forgotten) {
    entry.failed = answer.asked;
    if (known) return entry.answer;
  }
  entry.answer = std::make_shared<const Answer>(std::move(answer));
  return entry.answer;
}

void LookupCache::trim() {
  while (entries_.size() > options_.max_volumes && !idle_.empty()) {
    entries_.erase(idle_.begin()->second);
    idle_.erase(idle_.begin());
  }
}

std::vector<MasterReport> LookupCache::masters() const {
  return masters_.reports();
}

std::vector<RemoteVolumeReport> LookupCache::volumes(Clock::time_point now) const {
  std::vector<RemoteVolumeReport> reports;
  reports.reserve(entries_.size());
  for (const auto& [volume, entry] : entries_) {
    RemoteVolumeReport& report = reports.emplace_back();
    report.id = static_cast<std::uint32_t>(volume);
    report.error = "no master has answered yet";
    if (entry.answer == nullptr) continue;
    report.known = entry.answer->state == State::kKnown;
    report.error = entry.answer->error;
    report.locations = entry.answer->locations;
    if (entry.answer->state != State::kNoMaster) report.age_s = seconds(now - entry.answer->asked);
  }
  std::ranges::sort(reports, {}, &RemoteVolumeReport::id);
  return reports;
}

std::uint64_t LookupCache::lookups() const noexcept {
  return questions_;
}

std::uint64_t LookupCache::coalesced() const noexcept {
  return coalesced_;
}

}  // namespace kelp
