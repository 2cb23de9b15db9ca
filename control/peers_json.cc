#include "control/peers_json.h"

#include "control/report_json.h"
#include "shm_ring/kelp.h"

namespace kelp {

namespace {

double microseconds(std::uint64_t nanoseconds) {
  return static_cast<double>(nanoseconds) / 1000;
}

ReportJson traffic_json(const LinkCounters& traffic) {
  // relaxed: a number by itself.
  return {{"in_flight", traffic.in_flight.load(std::memory_order_relaxed)},
          {"answers", traffic.answers.value()},
          {"ok", traffic.ok.value()},
          {"late", traffic.late.value()},
          {"bytes", traffic.bytes.value()},
          {"p50_us", microseconds(traffic.latency.quantile(0.5))},
          {"p99_us", microseconds(traffic.latency.quantile(0.99))},
          {"max_us", microseconds(traffic.latency.max())}};
}

}  // namespace

std::string peers_json(const PeerConnections* peers) {
  if (peers == nullptr) return report_text({{"peers", ReportJson::array()}, {"counters", nullptr}});
  ReportJson list = ReportJson::array();
  for (const PeerReport& peer : peers->reports()) {
    list.push_back(
        {{"address", peer.address},
         {"node", peer.node},
         {"role", peer.target ? "target" : "gateway"},
         {"worker", peer.worker},
         {"target_worker", peer.target_worker},
         {"discovered", peer.guessed},
         {"state", peer.state},
         {"error", peer.error},
         {"key_id", peer.key_id},
         {"path", kelp_path_name(KELP_PATH_TCP)},
         {"credits", peer.slots},
         {"traffic", peer.traffic == nullptr ? ReportJson() : traffic_json(*peer.traffic)}});
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
