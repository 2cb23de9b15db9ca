#include "control/peers_json.h"

#include "control/report_json.h"

namespace kelp {

std::string peers_json(const PeerConnections* peers) {
  if (peers == nullptr) return report_text({{"peers", ReportJson::array()}, {"counters", nullptr}});
  ReportJson list = ReportJson::array();
  for (const PeerReport& peer : peers->reports()) {
    list.push_back({{"address", peer.address},
                    {"node", peer.node},
                    {"role", peer.target ? "target" : "gateway"},
                    {"worker", peer.worker},
                    {"target_worker", peer.target_worker},
                    {"discovered", peer.guessed},
                    {"state", peer.state},
                    {"error", peer.error},
                    {"key_id", peer.key_id}});
  }
  const PeerCounters counted = peers->counters();
  return report_text({{"peers", list},
                      {"counters",
                       {{"accepted", counted.accepted},
                        {"refused", counted.refused},
                        {"connected", counted.connected},
                        {"failed", counted.failed}}}});
}

}  // namespace kelp
