// Reads over HTTP what workers cannot read from files of this host. One thread for all workers.
//
//   worker ──RemoteLane──► where is the volume? ──► which server, by its breaker? ──► HTTP GET
//          ◄─────────────────────────── one answer, inside the request's deadline ◄──┘ (again)
//
// Libcurl drives every socket from one epoll loop, so a thousand stalled servers cost a thousand
// waiting requests and nothing else. A read owns the client's buffer until its answer is pushed;
// it is answered a moment before its deadline, whatever the network does.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "control/gateway/circuit_breaker.h"
#include "control/gateway/gateway_report.h"
#include "control/gateway/http_read.h"
#include "control/gateway/lookup_cache.h"
#include "control/gateway/retry_budget.h"
#include "control/gateway/server_address.h"
#include "control/http_client.h"
#include "control/peers/peer_directory.h"
#include "dataplane/worker/remote_lane.h"
#include "dataplane/worker/waker.h"
#include "shm_ring/hints.h"
#include "shm_ring/histogram.h"
#include "shm_ring/result.h"

namespace kelp {

struct GatewayOptions {
  LookupCache::Options lookup;
  bool https = false;
  std::string ca_file;
  std::string data_center;
  std::vector<ServerAddress> allowed;  ///< may be named by callers though no master lists them
  std::vector<ServerAddress> local;    ///< volume servers of this host: asked first
  PeerDirectory* peers = nullptr;      ///< kelpds of other hosts; outlives the gateway
  std::string read_key;                ///< secret; empty: no tokens are made
  std::chrono::milliseconds connect_timeout{1000};
  std::uint32_t connections_per_server = 64;
};

class Gateway {
 public:
  /// Starts the thread. `lanes` are the workers', which have not been started yet and end before
  /// the gateway does.
  static Result<std::unique_ptr<Gateway>> start(GatewayOptions options,
                                                std::vector<RemoteLane*> lanes);
  ~Gateway();

  // Any thread.
  GatewayReport report() const;
  /// Asks a master, if it is not known well enough: for report().
  void look_up(VolumeId volume);

 private:
  using Clock = std::chrono::steady_clock;
  using Key = std::uint64_t;  // lane << 32 | op

  /// A read that finds nobody, or not who was named, is led by an answer of masters no older.
  static constexpr std::chrono::milliseconds kYoung{1000};

  /// One volume server over HTTP.
  struct Server {
    CircuitBreaker breaker;
    /// Since the last success, those whose failure may have been their own: each counts once, so
    /// that a damaged one that is read again and again closes its server to nobody.
    std::set<std::pair<std::uint32_t, std::uint64_t>> damaged;
    std::uint64_t reads = 0;
    std::uint64_t failures = 0;
    std::uint64_t bytes = 0;
    Histogram latency;
  };
  struct Candidate {
    std::string server;
    bool listed = false;  ///< by a master; else the caller named it
    bool tried = false;
  };
  /// One request of a worker, until it is answered.
  struct Read {
    Read(Key of, RemoteLane& from, const RemoteRequest& wanted);

    const Key key;
    RemoteLane& lane;
    const RemoteRequest request;
    std::uint64_t number = 0;  // never used again: tells it from a later one of the same op
    Hints hints;
    Clock::time_point began;
    Clock::time_point end;                 // answered by then
    std::optional<Clock::time_point> due;  // in timers_
    std::vector<Candidate> candidates;
    Clock::time_point located{};  // when the question went out that named them
    bool located_anew = false;    // since the caller named a server that was not among them
    std::uint32_t rounds = 0;     // through all of them
    std::uint8_t attempts = 0;
    std::unique_ptr<HttpRead> attempt;
    HttpClient::Ticket ticket = 0;
    std::string server;   // of the attempt
    bool probes = false;  // it is the one a half-open breaker lets through
    Clock::time_point asked{};
    kelp_status status;  // what it ends with if nothing better comes
  };

  Gateway(GatewayOptions options, std::vector<RemoteLane*> lanes, HttpClient http);
  void run();
  void turn();
  void sleep();
  int timeout_ms() const;

  void take_requests();
  void begin(Key key, RemoteLane& lane, const RemoteRequest& request);
  bool take_hints(Read& read);
  void give_up(Key key, RemoteLane& lane, OpIndex op);
  void cancel(Key key);
  void locate(Read& read, Clock::time_point not_before);
  void located(Read& read, const LookupCache::Answer& answer);
  bool admit_named_server(Read& read, const LookupCache::Answer& answer);
  std::vector<Candidate> in_order(const std::vector<Location>& locations) const;
  void try_next(Read& read);
  Candidate* choose(Read& read);
  void try_again_later(Read& read);
  void attempt(Read& read, Candidate& candidate);
  void ask(Read& read);
  void attempt_ended(Read& read, const HttpAnswer& answer);
  void note_silence(const Read& read, Clock::time_point now);
  void note_failure(const Read& read, CircuitBreaker::Failure failure, const std::string& reason);
  void abandon(const Read& read);
  void judge(Read& read, Server& server, HttpRead::Result result);
  void not_here(Read& read);
  void answer(Read& read, const ReadOutcome& outcome, kelp_path path = KELP_PATH_NONE);
  void answer(Read& read, kelp_status status);
  void set_timer(Read& read, std::optional<Clock::time_point> when);
  void run_timers();
  Read* find(Key key, std::uint64_t number);
  Server& server(const std::string& name);
  void forget_servers();

  const GatewayOptions options_;
  const std::vector<RemoteLane*> lanes_;
  Waker waker_;
  std::atomic<bool> stop_{false};

  // All below: the thread's, for as long as it works; report() has a look in between.
  mutable std::mutex mutex_;
  std::set<std::uint32_t> wishes_;  // look_up()
  HttpClient http_;
  LookupCache lookups_;
  RetryBudget retries_;
  std::map<std::string, std::unique_ptr<Server>> servers_;
  std::set<std::pair<Clock::time_point, Key>> timers_;
  std::uint64_t last_number_ = 0;
  std::uint32_t spread_ = 0;  // which of equal replicas is first
  GatewayCounters counters_;
  std::vector<bool> answered_;  // lanes whose workers are to be woken
  std::unordered_map<Key, std::unique_ptr<Read>> reads_;

  std::thread thread_;
};

}  // namespace kelp
