// Asks each volume server of this host which volumes it has, and attests those that are open here.
//
// Rounds are 2 s apart, and come at once when a worker has seen files closed or has opened some.
// Each asks for /status, and whether a needle can be had without a token. Control thread only:
// every function here, and what is called back; driven like HttpClient.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/http_client.h"
#include "control/volume_status.h"
#include "dataplane/volume/attestation.h"
#include "shm_ring/result.h"

namespace kelp {

/// A volume server to ask; number n of the list is server n + 1 of VolumeKey.
struct WatchedServer {
  std::string url;  ///< as configured
  std::size_t directories = 0;
  std::shared_ptr<ServerPulse> pulse;
};

/// One server as people see it. Times are of the wall clock; nothing: never.
struct VolumeServerReport {
  using Time = std::chrono::system_clock::time_point;
  std::string url;
  std::string version;
  bool trusted = false;  ///< answered within the last 10 s
  bool wants_token = false;
  std::size_t listed = 0;  ///< volumes it has
  std::optional<Time> last_answer;
  std::optional<Time> failing_since;
  std::string failure;  ///< of the last request, while failing
};

/// Whether a volume is served on its server's word, and since when that is so.
struct Standing {
  bool attested = false;
  std::string reason;  ///< why not
  std::chrono::system_clock::time_point since;
};

class VolumeServerWatch {
 public:
  /// The attestations of server n's open volumes, at the time of the call.
  using Attestations = std::function<std::vector<std::shared_ptr<Attestation>>(std::uint32_t)>;

  static Result<std::unique_ptr<VolumeServerWatch>> create(std::vector<WatchedServer> servers,
                                                           Attestations attestations);

  int epoll_fd() const noexcept { return http_.epoll_fd(); }
  void run();
  std::optional<std::chrono::milliseconds> timeout() const;
  /// Something has changed since run(): do not sleep before the next.
  bool has_wishes() const noexcept;

  std::vector<VolumeServerReport> reports() const;
  /// Null: not seen yet.
  const Standing* standing(const VolumeKey& key) const;

  /// So long after a question that was answered its server counts as silent.
  static constexpr std::chrono::seconds kSilence{10};

 private:
  using Clock = std::chrono::steady_clock;

  /// One question to one server, from /status to the token.
  struct Round {
    Ticks asked = 0;
    std::vector<std::pair<std::shared_ptr<Attestation>, std::uint64_t>> tickets;
    VolumeServerStatus status;
  };
  struct Server {
    WatchedServer facts;
    VolumeServerReport report;
    std::uint64_t wishes_seen = 0;
    bool asking = false;
    Clock::time_point next{};
    Clock::time_point looked{};
    std::chrono::milliseconds pause{0};
    std::map<VolumeKey, std::string> refusals;  ///< of the last round
    std::map<VolumeKey, Standing> standings;
  };

  VolumeServerWatch(std::vector<WatchedServer> servers, Attestations attestations, HttpClient http);
  std::uint32_t number_of(const Server& server) const;
  void ask_status(Server& server);
  void ask_token(Server& server, const std::shared_ptr<Round>& round);
  void judge(Server& server, const Round& round);
  void fail(Server& server, const std::string& why);
  void plan_next(Server& server, bool failed);
  bool look(Server& server);
  std::string why_unattested(const Server& server, const Attestation& attestation) const;

  std::vector<Server> servers_;
  Attestations attestations_;
  HttpClient http_;
};

}  // namespace kelp
