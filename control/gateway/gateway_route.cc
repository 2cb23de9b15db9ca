// From a volume to one of its servers, and to the next one when that fails.
#include <algorithm>
#include <utility>

#include "control/gateway/gateway.h"
#include "control/gateway/read_token.h"

namespace kelp {
namespace {

/// Between two rounds through all replicas of a volume, while none answers: doubles.
constexpr std::chrono::milliseconds kShortestPause{50};
constexpr std::chrono::milliseconds kLongestPause{800};
/// Then a read gives up, though there may be time left.
constexpr std::chrono::seconds kPersistence{5};
/// A server that has not answered for so long counts as failing.
constexpr std::chrono::milliseconds kPatience{250};
/// So much later than a read ends libcurl gives up its last attempt: the read ends it.
constexpr std::chrono::milliseconds kSlack{1000};
/// Needles of a server remembered as damaged: more than open its breaker.
constexpr std::size_t kMostDamaged = 64;
/// Servers remembered; a cluster of more is read all the same.
constexpr std::size_t kMostServers = 4096;

std::string normal(const std::string& text) {
  const Result<ServerAddress> address = parse_server_address(text);
  return address ? address->text() : std::string();
}

}  // namespace

void Gateway::locate(Read& read, Clock::time_point not_before) {
  lookups_.find(read.request.fid.volume, Clock::now(), not_before,
                [this, key = read.key, number = read.number](const LookupCache::Answer& answer) {
                  if (Read* const waiting = find(key, number)) located(*waiting, answer);
                });
}

void Gateway::located(Read& read, const LookupCache::Answer& answer_of_master) {
  read.located = answer_of_master.asked;
  if (!admit_named_server(read, answer_of_master)) {
    // The caller may know better than an answer of some seconds ago.
    if (!std::exchange(read.located_anew, true)) return locate(read, read.began - kYoung);
    ++counters_.servers_refused;
    answer(read, KELP_DENIED);
    return;
  }
  std::vector<Candidate> candidates = in_order(answer_of_master.locations);
  if (!read.hints.server.empty()) {
    const std::string named = normal(read.hints.server);
    const bool listed =
        std::erase_if(candidates, [&](const Candidate& each) { return each.server == named; }) != 0;
    candidates.insert(candidates.begin(), {named, listed});
  }
  // After a 404: servers that have answered so and are still listed were right.
  for (Candidate& candidate : candidates) {
    candidate.tried = std::ranges::any_of(read.candidates, [&](const Candidate& before) {
      return before.tried && before.server == candidate.server;
    });
  }
  read.candidates = std::move(candidates);
  if (read.candidates.empty()) {
    answer(read, read.status == KELP_DENIED ? KELP_UNAVAILABLE : read.status);
    return;
  }
  try_next(read);
}

/// A server the caller names must be one the master lists for the volume, or the configuration
/// allows: texts are compared, nothing is resolved, so no name can stand for another machine.
bool Gateway::admit_named_server(Read& read, const LookupCache::Answer& answer_of_master) {
  if (read.hints.server.empty()) return true;
  const Result<ServerAddress> named = parse_server_address(read.hints.server);
  if (!named) return false;
  if (std::ranges::find(options_.allowed, *named) != options_.allowed.end()) return true;
  const std::string text = named->text();
  return std::ranges::any_of(answer_of_master.locations, [&](const Location& each) {
    return normal(each.url) == text || normal(each.public_url) == text;
  });
}

/// Those of this host, then those of our data center, then the others; replicas of a kind take
/// turns at being first.
std::vector<Gateway::Candidate> Gateway::in_order(const std::vector<Location>& locations) const {
  const auto rank = [this](const Location& location) {
    const Result<ServerAddress> address = parse_server_address(location.url);
    if (address && std::ranges::find(options_.local, *address) != options_.local.end()) return 0;
    return !options_.data_center.empty() && location.data_center == options_.data_center ? 1 : 2;
  };
  std::vector<Location> sorted = locations;
  // Not std::ranges::rotate: clang 14 cannot compile libstdc++ 12's.
  const auto turn = sorted.empty() ? 0 : spread_ % sorted.size();
  std::rotate(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(turn), sorted.end());
  std::ranges::stable_sort(sorted, {}, rank);
  std::vector<Candidate> candidates;
  for (const Location& location : sorted) candidates.push_back({normal(location.url), true});
  return candidates;
}

void Gateway::try_next(Read& read) {
  Candidate* const next = choose(read);
  if (next == nullptr) return try_again_later(read);
  if (read.attempts > 0 && !retries_.spend()) {
    server(next->server).breaker.abandoned();
    ++counters_.retries_refused;
    answer(read, read.status);
    return;
  }
  attempt(read, *next);
}

/// The first that may be tried; where there is none, one that is held back but may be well again.
Gateway::Candidate* Gateway::choose(Read& read) {
  const Clock::time_point now = Clock::now();
  for (Candidate& candidate : read.candidates) {
    if (!candidate.tried && server(candidate.server).breaker.may_try(now)) return &candidate;
  }
  for (Candidate& candidate : read.candidates) {
    if (!candidate.tried && server(candidate.server).breaker.may_try_at_last(now))
      return &candidate;
  }
  return nullptr;
}

/// Every replica has failed or is held back: once more a little later, by a new look-up, for some
/// seconds: a server may be on its way back.
void Gateway::try_again_later(Read& read) {
  const Clock::time_point now = Clock::now();
  Clock::time_point when =
      now + std::min(kShortestPause * (1 << std::min(read.rounds, 8U)), kLongestPause);
  for (Candidate& candidate : read.candidates) {
    // One that lets somebody else's attempt through now tells before long.
    const Clock::time_point retry = server(candidate.server).breaker.retry_at();
    if (!candidate.tried && retry > now) when = std::min(when, retry);
    candidate.tried = false;
  }
  ++read.rounds;
  if (when >= read.end || when - read.began > kPersistence) {
    answer(read, read.status == KELP_DENIED ? KELP_UNAVAILABLE : read.status);
    return;
  }
  set_timer(read, std::max(when, now + std::chrono::milliseconds(1)));
}

void Gateway::attempt(Read& read, Candidate& candidate) {
  candidate.tried = true;
  read.server = candidate.server;
  if (++read.attempts > 1) ++counters_.retries;
  ++spread_;
  ask(read);
}

void Gateway::ask(Read& read) {
  const Clock::time_point now = Clock::now();
  if (read.attempt == nullptr) {
    HttpReadRequest wanted;
    wanted.fid = read.request.fid;
    wanted.stat = read.request.kind == RemoteRequest::Kind::kStat;
    wanted.offset_bytes = read.request.offset_bytes;
    wanted.destination = read.request.buffer;
    read.attempt = std::make_unique<HttpRead>(wanted);
  }
  std::string token = read.hints.token;
  if (token.empty() && !options_.read_key.empty()) {
    token = sign_read_token(options_.read_key, format_file_id(read.request.fid),
                            std::chrono::system_clock::now());
  }
  HttpClient::Request request =
      read.attempt->request((options_.https ? "https://" : "http://") + read.server, token);
  // Time for another replica is left while there is one.
  const bool last = std::ranges::all_of(read.candidates, &Candidate::tried);
  const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(read.end - now);
  request.deadline = last ? left + kSlack : std::max(left / 2, std::chrono::milliseconds(1));
  request.connect_deadline = std::min(options_.connect_timeout, request.deadline);
  read.probes = server(read.server).breaker.state(now) != CircuitBreaker::State::kClosed;
  read.asked = now;
  read.ticket = http_.ask(std::move(request),
                          [this, key = read.key, number = read.number](const HttpAnswer& ended) {
                            if (Read* const waiting = find(key, number))
                              attempt_ended(*waiting, ended);
                          });
}

void Gateway::attempt_ended(Read& read, const HttpAnswer& ended) {
  read.ticket = 0;
  Server& from = server(read.server);
  HttpRead::Result result = read.attempt->finish(ended);
  const Clock::time_point now = Clock::now();
  if (ended.timed_out) {
    note_silence(read, now);
  } else if (result.failure) {
    ++from.failures;
    note_failure(read, *result.failure, result.reason);
  } else {
    ++from.reads;
    from.bytes += result.outcome.bytes;
    from.latency.record(static_cast<std::uint64_t>((now - read.asked).count()));
    from.breaker.succeeded(now);
    from.damaged.clear();
  }
  judge(read, from, std::move(result));
}

/// A server that lets a read wait for long. What one does not answer within the millisecond some
/// client allows says nothing about it.
void Gateway::note_silence(const Read& read, Clock::time_point now) {
  ++server(read.server).failures;
  if (now - read.asked < kPatience) {
    abandon(read);
  } else {
    note_failure(read, CircuitBreaker::Failure::kNoAnswer, "it does not answer in time");
  }
}

/// What began before a breaker opened neither lengthens its backoff nor stands for its probe.
void Gateway::note_failure(const Read& read, CircuitBreaker::Failure failure,
                           const std::string& reason) {
  CircuitBreaker& breaker = server(read.server).breaker;
  const Clock::time_point now = Clock::now();
  if (!read.probes && breaker.state(now) != CircuitBreaker::State::kClosed) return;
  if (failure == CircuitBreaker::Failure::kServerError) {
    auto& damaged = server(read.server).damaged;
    if (damaged.size() >= kMostDamaged) damaged.clear();
    const FileId& fid = read.request.fid;
    const auto volume = static_cast<std::uint32_t>(fid.volume);
    const auto needle = static_cast<std::uint64_t>(fid.needle);
    if (!damaged.emplace(volume, needle).second) return abandon(read);
  }
  breaker.failed(now, failure, reason);
}

void Gateway::abandon(const Read& read) {
  if (read.probes) server(read.server).breaker.abandoned();
}

void Gateway::judge(Read& read, Server& from, HttpRead::Result result) {
  if (result.redirected) ++counters_.redirects_refused;
  switch (result.verdict) {
    case HttpRead::Verdict::kDone:
      answer(read, result.outcome,
             result.outcome.status == KELP_OK ? KELP_PATH_HTTP : KELP_PATH_NONE);
      return;
    case HttpRead::Verdict::kNotHere:
      not_here(read);
      return;
    case HttpRead::Verdict::kAskMore:
      // The same server, which has just answered.
      if (!from.breaker.may_try(Clock::now())) break;
      ask(read);
      return;
    case HttpRead::Verdict::kElsewhere:
      if (result.outcome.status != KELP_UNAVAILABLE || read.status == KELP_DENIED) {
        read.status = result.outcome.status;
      }
      break;
  }
  try_next(read);
}

/// 404: the needle is gone, or the volume is. A master that was asked after the read began knows.
void Gateway::not_here(Read& read) {
  const bool some = std::ranges::any_of(read.candidates, &Candidate::listed);
  const bool this_one = std::ranges::any_of(read.candidates, [&](const Candidate& each) {
    return each.listed && each.server == read.server;
  });
  if (!this_one) {
    // One of the caller's choice: those that the master lists know better.
    if (some) return try_next(read);
    return answer(read, KELP_UNAVAILABLE);
  }
  if (read.located >= read.began) {
    answer(read, KELP_NOT_FOUND);
    return;
  }
  const std::string from = read.server;
  lookups_.find(read.request.fid.volume, Clock::now(), read.began,
                [this, key = read.key, number = read.number, from](const auto& anew) {
                  Read* const waiting = find(key, number);
                  if (waiting == nullptr) return;
                  const bool listed = std::ranges::any_of(
                      anew.locations,
                      [&](const Location& each) { return normal(each.url) == from; });
                  const bool known = anew.state == LookupCache::State::kKnown;
                  if (known && !listed) {
                    located(*waiting, anew);
                  } else {
                    // That it is not there is said only on the word of a master asked since.
                    const bool sure = known && anew.asked >= waiting->began;
                    answer(*waiting, sure ? KELP_NOT_FOUND : KELP_UNAVAILABLE);
                  }
                });
}

Gateway::Server& Gateway::server(const std::string& name) {
  std::unique_ptr<Server>& found = servers_[name];
  if (found == nullptr) {
    if (servers_.size() > kMostServers) forget_servers();
    servers_[name] = std::make_unique<Server>();
  }
  return *servers_[name];
}

/// Those nobody reads from now.
void Gateway::forget_servers() {
  std::set<std::string> used;
  for (const auto& [key, read] : reads_) used.insert(read->server);
  std::erase_if(servers_, [&](const auto& each) { return !used.contains(each.first); });
}

}  // namespace kelp
