// What is known of a connection to another kelpd, for people to look at.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "control/peers/rdma_path.h"
#include "dataplane/transport/link_counters.h"
#include "dataplane/transport/verbs/rdma_devices.h"
#include "dataplane/transport/verbs/verbs_counters.h"
#include "shm_ring/kelp.h"

namespace kelp {

struct PeerReport {
  std::string address;   ///< of a target as configured, of a gateway as it came
  std::string node;      ///< of a gateway; untrusted
  bool target = false;   ///< we ask it; else it asks us
  bool guessed = false;  ///< nobody configured it
  std::uint32_t worker = 0;
  std::uint32_t target_worker = 0;
  std::string state;  ///< "up", "connecting", "waiting", "absent"
  std::string error;  ///< why it is not up
  std::uint32_t key_id = 0;
  std::uint16_t slots = 0;                         ///< credits; 0: it is not up
  std::shared_ptr<const LinkCounters> traffic;     ///< null: it has not been up yet
  kelp_path path = KELP_PATH_TCP;                  ///< what answers come by
  std::shared_ptr<const VerbsCounters> adapter{};  ///< null: it is no RDMA connection, or not up
  std::optional<RdmaPath> rdma{};                  ///< nothing: the same
};

struct PeerCounters {
  std::uint64_t accepted = 0;
  std::uint64_t refused = 0;    ///< of those: did not come to an agreement
  std::uint64_t connected = 0;  ///< to targets
  std::uint64_t failed = 0;     ///< attempts at those
};

/// All connections to and from other kelpds.
struct PeersReport {
  std::vector<PeerReport> peers;
  PeerCounters by_tcp;
  std::optional<PeerCounters> by_rdma{};  ///< nothing: there is no RDMA here
  std::size_t pinned_bytes = 0;           ///< for RDMA
  /// Of all ports of this host: retries and RNR are counted by port, not by connection.
  std::vector<RdmaPortCounters> rdma_ports{};
};

}  // namespace kelp
