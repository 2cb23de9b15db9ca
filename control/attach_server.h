// Admits programs: answers attach requests, makes their segments and rings, notices their death.
//
// Control thread only. A client's death is the hang-up of its socket; then its rings are taken back
// from the workers, and once nothing of it is in flight, its memory is punched out and unmapped.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/admission.h"
#include "control/client_quotas.h"
#include "control/client_report.h"
#include "dataplane/memory/client_segment.h"
#include "dataplane/worker/client.h"
#include "dataplane/worker/worker.h"
#include "shm_ring/attach.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

struct AttachLimits {
  std::uint32_t ring_entries = 256;  ///< for clients that leave it to the daemon
  std::uint32_t max_clients = 256;
  std::uint32_t max_channels = 64;  ///< per client
  std::uint64_t max_data_bytes = 1ULL << 30;
  std::uint64_t max_timeout_us = 60'000'000;
  HugepageUse hugepages = HugepageUse::kPrefer;
  AdmissionList admitted;
  QuotaLimits per_uid;
};

class AttachServer {
 public:
  /// `listen_fd` is a non-blocking SOCK_SEQPACKET listener that stays the caller's; its sockets are
  /// watched in `epoll_fd` under ids the caller hands back to handle().
  AttachServer(int listen_fd, int epoll_fd, AttachLimits limits, std::vector<Worker*> workers);
  ~AttachServer();

  /// Registers the data areas of programs from now on, and outlives this.
  void set_registrar(MemoryRegistrar* registrar) noexcept { registrar_ = registrar; }
  /// Watches the listener under `listener_id`; connections get ids above it.
  Result<void> start(std::uint64_t listener_id);

  /// The listener has connections waiting: takes some of them, and is readable while more wait.
  void accept_some();
  /// The connection of that id is readable or gone. False: no such connection.
  bool handle(std::uint64_t id);
  /// A worker has let go of a ring, or found it broken.
  void handle(const WorkerReport& report);
  /// Closes connections that have not said what they want in time; call at least once a second.
  void expire();

  /// For clients that come from now on; those that are attached keep what they were given.
  void set_limits(const AttachLimits& limits) {
    limits_ = limits;
    quotas_.set_limits(limits.per_uid);
  }

  /// Takes no new clients from now on.
  void close_listener();

  std::size_t clients() const noexcept { return attached_.size(); }
  /// Every attached program, in the order they came.
  std::vector<ClientReport> client_reports() const;
  /// Why the last data area had to do without hugepages; "" if none had to.
  const std::string& hugepage_note() const noexcept { return hugepage_note_; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Connection {
    UniqueFd socket;
    Clock::time_point since;
    std::unique_ptr<Client> client;  ///< null until attached
    std::size_t rings_out = 0;       ///< rings the workers have
    QuotaShare share;                ///< taken while attached
    bool leaving = false;
  };

  void attach(std::uint64_t id, Connection& connection);
  Result<void> admit(Connection& connection, const AttachRequest& request, AttachReply& reply,
                     AttachDescriptors& descriptors);
  Result<void> make_segment(Client& client, const SegmentLayout& layout, std::uint64_t data_bytes);
  Result<void> make_rings(Client& client, std::uint32_t rings, AttachDescriptors& descriptors);
  void refuse(Connection& connection, std::uint32_t status, const std::string& why);
  void hand_over(std::uint64_t id, Connection& connection);
  void leave(std::uint64_t id, Connection& connection);
  void drop(std::uint64_t id);
  void pause_listener();
  void send_command(Worker& worker, const WorkerCommand& command);

  const int listen_fd_;
  const int epoll_fd_;
  AttachLimits limits_;
  const std::vector<Worker*> workers_;
  MemoryRegistrar* registrar_ = nullptr;
  ClientQuotas quotas_;
  std::uint64_t listener_id_ = 0;
  std::uint64_t next_id_ = 0;
  bool listening_ = true;
  std::optional<Clock::time_point> paused_;  ///< since when no connection can be taken
  std::map<std::uint64_t, Connection> half_open_;
  std::map<std::uint64_t, Connection> attached_;
  std::string hugepage_note_;
};

}  // namespace kelp
