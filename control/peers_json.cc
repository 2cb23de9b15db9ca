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

ReportJson adapter_json(const VerbsCounters& adapter) {
  return {{"doorbells", adapter.doorbells.value()},
          {"posted", adapter.posted.value()},
          {"signalled", adapter.signalled.value()}};
}

ReportJson rdma_json(const RdmaPath& path) {
  return {{"device", path.device},
          {"port", path.port},
          {"gid", path.gid},
          {"gid_type", path.gid_type},
          {"mtu_bytes", path.mtu_bytes}};
}

ReportJson peer_json(const PeerReport& peer) {
  return {{"address", peer.address},
          {"node", peer.node},
          {"role", peer.target ? "target" : "gateway"},
          {"worker", peer.worker},
          {"target_worker", peer.target_worker},
          {"discovered", peer.guessed},
          {"state", peer.state},
          {"error", peer.error},
          {"key_id", peer.key_id},
          {"path", kelp_path_name(peer.path)},
          {"credits", peer.slots},
          {"traffic", peer.traffic == nullptr ? ReportJson() : traffic_json(*peer.traffic)},
          {"adapter", peer.adapter == nullptr ? ReportJson() : adapter_json(*peer.adapter)},
          {"rdma", peer.rdma ? rdma_json(*peer.rdma) : ReportJson()}};
}

ReportJson counts_json(const PeerCounters& counted) {
  return {{"accepted", counted.accepted},
          {"refused", counted.refused},
          {"connected", counted.connected},
          {"failed", counted.failed}};
}

}  // namespace

std::string peers_json(const std::optional<PeersReport>& report) {
  if (!report) return report_text({{"peers", ReportJson::array()}, {"counters", nullptr}});
  ReportJson list = ReportJson::array();
  for (const PeerReport& peer : report->peers) list.push_back(peer_json(peer));
  ReportJson document = {{"peers", list}, {"counters", counts_json(report->by_tcp)}};
  if (report->by_rdma) {
    document["rdma_counters"] = counts_json(*report->by_rdma);
    document["rdma_counters"]["pinned_bytes"] = report->pinned_bytes;
    ReportJson ports = ReportJson::array();
    for (const RdmaPortCounters& port : report->rdma_ports) {
      ports.push_back({{"device", port.device}, {"port", port.port}, {"counters", port.counters}});
    }
    document["rdma_ports"] = ports;
  }
  return report_text(document);
}

}  // namespace kelp
