#include "control/volume_server_watch.h"

#include <algorithm>
#include <utility>

#include "control/log.h"

namespace kelp {
namespace {

constexpr std::chrono::milliseconds kRound{2000};
/// While a volume could be attested, or the server fails: the pause doubles between these.
constexpr std::chrono::milliseconds kShortestPause{20};
constexpr std::chrono::milliseconds kLongestPause{1000};
constexpr std::chrono::milliseconds kDeadline{3000};
/// About 400 bytes per volume.
constexpr std::size_t kMaxStatusBytes = std::size_t{64} << 20;

std::string full_url(const std::string& url, const std::string& path) {
  return (url.find("://") == std::string::npos ? "http://" : "") + url + path;
}

Ticks silence_ticks() {
  const auto us = std::chrono::microseconds(VolumeServerWatch::kSilence).count();
  return TickRate::instance().from_us(static_cast<std::uint64_t>(us));
}

}  // namespace

Result<std::unique_ptr<VolumeServerWatch>> VolumeServerWatch::create(
    std::vector<WatchedServer> servers, Attestations attestations) {
  auto http = HttpClient::create();
  if (!http) return tl::unexpected(http.error());
  return std::unique_ptr<VolumeServerWatch>(
      new VolumeServerWatch(std::move(servers), std::move(attestations), std::move(*http)));
}

VolumeServerWatch::VolumeServerWatch(std::vector<WatchedServer> servers, Attestations attestations,
                                     HttpClient http)
    : attestations_(std::move(attestations)), http_(std::move(http)) {
  for (WatchedServer& facts : servers) {
    Server& server = servers_.emplace_back();
    server.report.url = facts.url;
    server.facts = std::move(facts);
  }
}

std::uint32_t VolumeServerWatch::number_of(const Server& server) const {
  return static_cast<std::uint32_t>(&server - servers_.data()) + 1;
}

bool VolumeServerWatch::has_wishes() const noexcept {
  return std::ranges::any_of(servers_, [](const Server& server) {
    return server.facts.pulse->wishes.load(std::memory_order_acquire) != server.wishes_seen;
  });
}

void VolumeServerWatch::run() {
  http_.run();
  const Clock::time_point now = Clock::now();
  for (Server& server : servers_) {
    const std::uint64_t wishes = server.facts.pulse->wishes.load(std::memory_order_acquire);
    if (wishes != server.wishes_seen) {
      server.wishes_seen = wishes;
      server.pause = kShortestPause;
      // An answer under way may be about what was before; this makes another follow it.
      server.next = now;
      look(server);
    } else if (now - server.looked > kLongestPause) {
      look(server);  // trust runs out without an event
    }
    if (!server.asking && now >= server.next) ask_status(server);
  }
}

std::optional<std::chrono::milliseconds> VolumeServerWatch::timeout() const {
  std::optional<std::chrono::milliseconds> least = http_.timeout();
  const Clock::time_point now = Clock::now();
  for (const Server& server : servers_) {
    if (server.asking) continue;
    auto left = std::chrono::ceil<std::chrono::milliseconds>(server.next - now);
    left = std::max(left, std::chrono::milliseconds(0));
    if (!least || left < *least) least = left;
  }
  return least;
}

void VolumeServerWatch::ask_status(Server& server) {
  auto round = std::make_shared<Round>();
  // The tickets before the question: what closes from here on makes the answer void.
  for (auto& attestation : attestations_(number_of(server))) {
    const std::uint64_t ticket = attestation->ticket();
    if (ticket != 0) round->tickets.emplace_back(std::move(attestation), ticket);
  }
  round->asked = ticks_now();
  server.asking = true;
  server.next = Clock::time_point::max();
  http_.ask({.url = full_url(server.facts.url, "/status"),
             .deadline = kDeadline,
             .max_body_bytes = kMaxStatusBytes},
            [this, &server, round](HttpAnswer answer) {
              if (answer.status == 0) return fail(server, answer.error);
              if (answer.status != 200) {
                return fail(server, "/status was answered with " + std::to_string(answer.status));
              }
              auto status = parse_volume_status(answer.body);
              if (!status) return fail(server, status.error().what);
              round->status = std::move(*status);
              ask_token(server, round);
            });
}

void VolumeServerWatch::ask_token(Server& server, const std::shared_ptr<Round>& round) {
  if (round->status.volumes.empty()) return judge(server, *round);
  // The token is looked at before the needle is: any name of one will do.
  const auto vid = static_cast<std::uint32_t>(round->status.volumes.begin()->first);
  http_.ask({.url = full_url(server.facts.url, "/" + std::to_string(vid) + ",0100000000"),
             .method = HttpClient::Method::kHead,
             .deadline = kDeadline},
            [this, &server, round](HttpAnswer answer) {
              if (answer.status == 0) return fail(server, answer.error);
              server.report.wants_token = answer.status == 401;
              judge(server, *round);
            });
}

void VolumeServerWatch::judge(Server& server, const Round& round) {
  ServerPulse& pulse = *server.facts.pulse;
  pulse.wants_token.store(server.report.wants_token, std::memory_order_relaxed);
  pulse.trusted_until.store(round.asked + silence_ticks(), std::memory_order_release);
  server.refusals.clear();
  for (const auto& [attestation, ticket] : round.tickets) {
    std::string why =
        why_not_attested(attestation->facts(), round.status, server.facts.directories);
    if (why.empty()) {
      attestation->attest(ticket);
    } else {
      attestation->withdraw();
      server.refusals.emplace(attestation->facts().key, std::move(why));
    }
  }
  if (server.report.failing_since || !server.report.last_answer) {
    log_info("volume server answers", {{"url", server.facts.url},
                                       {"version", round.status.version},
                                       {"volumes", std::to_string(round.status.volumes.size())}});
  }
  server.report.version = round.status.version;
  server.report.listed = round.status.volumes.size();
  server.report.last_answer = std::chrono::system_clock::now();
  server.report.failing_since.reset();
  server.report.failure.clear();
  plan_next(server, false);
}

void VolumeServerWatch::fail(Server& server, const std::string& why) {
  if (!server.report.failing_since) {
    server.report.failing_since = std::chrono::system_clock::now();
    log_warning("volume server does not answer", {{"url", server.facts.url}, {"error", why}});
  }
  server.report.failure = why;
  plan_next(server, true);
}

void VolumeServerWatch::plan_next(Server& server, bool failed) {
  server.asking = false;
  const bool complete = look(server);
  const bool wished =
      server.facts.pulse->wishes.load(std::memory_order_acquire) != server.wishes_seen;
  if (complete && !failed && !wished) {
    server.pause = kShortestPause;
    server.next = Clock::now() + kRound;
    return;
  }
  server.next = Clock::now() + server.pause;
  server.pause = std::clamp(server.pause * 2, kShortestPause, kLongestPause);
}

/// Notes how each volume stands; false if one could be attested and is not.
bool VolumeServerWatch::look(Server& server) {
  server.looked = Clock::now();
  bool complete = true;
  std::map<VolumeKey, Standing> standings;
  const Ticks now = ticks_now();
  for (const auto& attestation : attestations_(number_of(server))) {
    const VolumeKey& key = attestation->facts().key;
    Standing standing;
    standing.attested = attestation->holds(now);
    if (!standing.attested) {
      standing.reason = why_unattested(server, *attestation);
      complete = complete && attestation->is_unwatchable();
    }
    const auto before = server.standings.find(key);
    const bool changed =
        before == server.standings.end() || before->second.attested != standing.attested;
    standing.since = changed ? std::chrono::system_clock::now() : before->second.since;
    standings.emplace(key, std::move(standing));
  }
  server.standings = std::move(standings);
  return complete;
}

std::string VolumeServerWatch::why_unattested(const Server& server,
                                              const Attestation& attestation) const {
  if (attestation.is_unwatchable()) {
    return "its files cannot be watched: raise fs.inotify.max_user_watches and max_user_instances";
  }
  if (!server.report.last_answer) return "its volume server has not answered yet";
  if (ticks_now() >= attestation.pulse().trusted_until.load(std::memory_order_acquire)) {
    return "its volume server has not answered for " + std::to_string(kSilence.count()) + " s";
  }
  const auto refusal = server.refusals.find(attestation.facts().key);
  if (refusal != server.refusals.end()) return refusal->second;
  if (attestation.ticket() == 0 || !attestation.was_attested()) {
    return "its volume server has not been asked yet";
  }
  return "a program that could write its files, likely its volume server, has closed them";
}

std::vector<VolumeServerReport> VolumeServerWatch::reports() const {
  std::vector<VolumeServerReport> all;
  for (const Server& server : servers_) {
    all.push_back(server.report);
    all.back().trusted =
        ticks_now() < server.facts.pulse->trusted_until.load(std::memory_order_acquire);
  }
  return all;
}

const Standing* VolumeServerWatch::standing(const VolumeKey& key) const {
  if (key.server == 0 || key.server > servers_.size()) return nullptr;
  const auto& standings = servers_[key.server - 1].standings;
  const auto found = standings.find(key);
  return found == standings.end() ? nullptr : &found->second;
}

}  // namespace kelp
