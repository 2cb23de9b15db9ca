// The thread, and a read's start and end; gateway_route.cc is the way in between.
#include "control/gateway/gateway.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <system_error>

#include "control/log.h"
#include "shm_ring/ticks.h"

namespace kelp {
namespace {

/// So long before its deadline a read is answered: the worker would hold the buffer at it.
constexpr std::chrono::microseconds kHaste{1500};
/// Longest sleep: nothing depends on it.
constexpr int kIdleSleepMs = 1000;
constexpr std::uint32_t kRequestsPerTurn = 256;

/// A token or an address is printable and in one piece; all else could be another header.
bool is_plain(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

Gateway::Read::Read(Key of, RemoteLane& from, const RemoteRequest& wanted)
    : key(of), lane(from), request(wanted), began(Clock::now()), status(wanted.why) {
  const Ticks now = ticks_now();
  const std::uint64_t left_ns =
      wanted.deadline > now ? TickRate::instance().to_ns(wanted.deadline - now) : 0;
  end = began + std::chrono::nanoseconds(left_ns) - kHaste;
}

Result<std::unique_ptr<Gateway>> Gateway::start(GatewayOptions options,
                                                std::vector<RemoteLane*> lanes) {
  HttpClientOptions client;
  client.ca_file = options.ca_file;
  client.connections_per_server = options.connections_per_server;
  auto http = HttpClient::create(client);
  if (!http) return tl::unexpected(http.error());
  std::unique_ptr<Gateway> gateway(
      new Gateway(std::move(options), std::move(lanes), std::move(*http)));
  try {
    gateway->thread_ = std::thread([raw = gateway.get()] { raw->run(); });
  } catch (const std::system_error& error) {
    return system_error("cannot start the gateway's thread", error.code().value());
  }
  ::pthread_setname_np(gateway->thread_.native_handle(), "kelp-gateway");
  return gateway;
}

Gateway::Gateway(GatewayOptions options, std::vector<RemoteLane*> lanes, HttpClient http)
    : options_(std::move(options)),
      lanes_(std::move(lanes)),
      http_(std::move(http)),
      lookups_(options_.lookup,
               [this](HttpClient::Request request, std::function<void(HttpAnswer)> done) {
                 http_.ask(std::move(request), std::move(done));
               }),
      answered_(lanes_.size()) {
  for (RemoteLane* lane : lanes_) lane->reader = &waker_;
}

Gateway::~Gateway() {
  stop_.store(true, std::memory_order_release);
  waker_.notify();
  if (thread_.joinable()) thread_.join();
}

void Gateway::run() {
  while (!stop_.load(std::memory_order_acquire)) {
    {
      const std::lock_guard lock(mutex_);
      try {
        turn();
      } catch (const std::exception& error) {  // no memory: reads end at their deadlines
        log_error("the gateway had to give up a turn", {{"error", error.what()}});
      }
    }
    sleep();
  }
}

void Gateway::turn() {
  take_requests();
  const std::set<std::uint32_t> wishes = std::exchange(wishes_, {});
  const Clock::time_point now = Clock::now();
  for (const std::uint32_t volume : wishes) {
    lookups_.find(VolumeId{volume}, now, Clock::time_point::min(), [](const auto&) {});
  }
  http_.run();
  run_timers();
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    if (answered_[i]) lanes_[i]->worker.notify();
    answered_[i] = false;
  }
}

void Gateway::sleep() {
  waker_.arm();
  bool work = stop_.load(std::memory_order_acquire) ||
              std::ranges::any_of(lanes_, [](RemoteLane* l) { return !l->requests.empty(); });
  {
    const std::lock_guard lock(mutex_);
    work = work || !wishes_.empty();
  }
  if (!work) http_.wait(waker_.fd(), std::chrono::milliseconds(timeout_ms()));
  waker_.disarm();
}

int Gateway::timeout_ms() const {
  auto timeout = std::chrono::milliseconds(kIdleSleepMs);
  if (const auto http = http_.timeout()) timeout = std::min(timeout, *http);
  if (!timers_.empty()) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(timers_.begin()->first - Clock::now());
    timeout = std::clamp(left, std::chrono::milliseconds(0), timeout);
  }
  return static_cast<int>(timeout.count());
}

void Gateway::take_requests() {
  for (std::size_t i = 0; i < lanes_.size(); ++i) {
    for (std::uint32_t taken = 0; taken < kRequestsPerTurn; ++taken) {
      const std::optional<RemoteRequest> request = lanes_[i]->requests.try_pop();
      if (!request) break;
      const Key key = Key{i} << 32 | request->op;
      if (request->kind == RemoteRequest::Kind::kCancel) {
        cancel(key);
        continue;
      }
      try {
        begin(key, *lanes_[i], *request);
      } catch (const std::bad_alloc&) {
        give_up(key, *lanes_[i], request->op);
      }
    }
  }
}

void Gateway::begin(Key key, RemoteLane& lane, const RemoteRequest& request) {
  ++counters_.requests;
  ++counters_.in_flight;
  retries_.earn();
  Read& read = *reads_.emplace(key, std::make_unique<Read>(key, lane, request)).first->second;
  read.number = ++last_number_;
  if (!take_hints(read)) {
    answer(read, KELP_INVALID);
    return;
  }
  if (read.began >= read.end) {
    answer(read, KELP_DEADLINE);
    return;
  }
  set_timer(read, read.end);
  locate(read, Clock::time_point::min());
}

/// There was no memory to begin with it.
void Gateway::give_up(Key key, RemoteLane& lane, OpIndex op) {
  if (const auto begun = reads_.find(key); begun != reads_.end()) {
    answer(*begun->second, KELP_UNAVAILABLE);
    return;
  }
  --counters_.in_flight;
  ++counters_.failed;
  ReadOutcome outcome;
  outcome.status = KELP_UNAVAILABLE;
  lane.answers.try_push({op, outcome, KELP_PATH_NONE, 0, kNoPeer});
  answered_[static_cast<std::size_t>(key >> 32)] = true;
}

/// Copies what the client wrote once, and judges the copy.
bool Gateway::take_hints(Read& read) {
  if (read.request.hints.empty()) return true;
  std::array<std::byte, kHintsBytes> copy;
  std::memcpy(copy.data(), read.request.hints.data(), copy.size());
  const std::optional<Hints> hints = read_hints(std::span<const std::byte, kHintsBytes>(copy));
  if (!hints || !is_plain(hints->token) || !is_plain(hints->server)) return false;
  read.hints = *hints;
  return true;
}

void Gateway::cancel(Key key) {
  const auto found = reads_.find(key);
  if (found == reads_.end()) return;  // its answer is under way
  ++counters_.cancelled;
  answer(*found->second, KELP_DEADLINE);
}

void Gateway::answer(Read& read, kelp_status status) {
  ReadOutcome outcome;
  outcome.status = status;
  answer(read, outcome);
}

/// The end of `read`: nothing writes into its buffer any more.
void Gateway::answer(Read& read, const ReadOutcome& outcome, kelp_path path) {
  if (read.ticket != 0) {
    http_.cancel(read.ticket);
    abandon(read);
  }
  set_timer(read, std::nullopt);
  --counters_.in_flight;
  ++(outcome.status == KELP_OK ? counters_.answered : counters_.failed);
  const bool told = options_.peers != nullptr && outcome.status == KELP_OK;
  const PeerIndex peer = told ? options_.peers->beside(read.server) : kNoPeer;
  read.lane.answers.try_push({read.request.op, outcome, path, read.attempts, peer});
  answered_[static_cast<std::size_t>(read.key >> 32)] = true;
  reads_.erase(read.key);
}

void Gateway::set_timer(Read& read, std::optional<Clock::time_point> when) {
  if (read.due) timers_.erase({*read.due, read.key});
  read.due = when;
  if (when) timers_.emplace(*when, read.key);
}

void Gateway::run_timers() {
  const Clock::time_point now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first <= now) {
    Read& read = *reads_.at(timers_.begin()->second);
    if (now >= read.end) {
      if (read.ticket != 0) note_silence(read, now);
      answer(read, KELP_DEADLINE);
    } else {
      set_timer(read, read.end);
      locate(read, now - kYoung);
    }
  }
}

Gateway::Read* Gateway::find(Key key, std::uint64_t number) {
  const auto found = reads_.find(key);
  return found != reads_.end() && found->second->number == number ? found->second.get() : nullptr;
}

void Gateway::look_up(VolumeId volume) {
  {
    const std::lock_guard lock(mutex_);
    wishes_.insert(static_cast<std::uint32_t>(volume));
  }
  waker_.notify();
}

GatewayReport Gateway::report() const {
  const std::lock_guard lock(mutex_);
  const Clock::time_point now = Clock::now();
  GatewayReport report;
  report.masters = lookups_.masters();
  report.volumes = lookups_.volumes(now);
  report.counters = counters_;
  report.counters.lookups = lookups_.lookups();
  report.counters.lookups_coalesced = lookups_.coalesced();
  for (const auto& [name, server] : servers_) {
    RemoteServerReport& each = report.servers.emplace_back();
    each.server = name;
    each.path = kelp_path_name(KELP_PATH_HTTP);
    each.breaker = breaker_state_name(server->breaker.state(now));
    each.reason = server->breaker.reason();
    each.failing_since = server->breaker.failing_since();
    each.reads = server->reads;
    each.failures = server->failures;
    each.bytes = server->bytes;
    each.p50_ns = server->latency.quantile(0.5);
    each.p99_ns = server->latency.quantile(0.99);
  }
  return report;
}

}  // namespace kelp
