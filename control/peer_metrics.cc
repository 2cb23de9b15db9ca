#include "control/peer_metrics.h"

#include <map>

#include "shm_ring/kelp.h"

namespace kelp {
namespace {

/// Those that come to us have a port of the moment, which is no name to keep figures under.
void write_gateways(Exposition& out, const PeersReport& report) {
  std::map<std::string, std::uint64_t> up = {{"tcp", 0}};
  if (report.by_rdma) up["verbs"] = 0;
  for (const PeerReport& peer : report.peers) {
    if (!peer.target && peer.state == "up") ++up[kelp_path_name(peer.path)];
  }
  out.family("kelp_peer_gateways", "gauge", "Connections of gateways that ask here.");
  for (const auto& [path, count] : up) out.sample({{"path", path}}, count);
}

Exposition::Labels labels_of(const PeerReport& peer) {
  return {{"target", peer.address},
          {"path", kelp_path_name(peer.path)},
          {"worker", std::to_string(peer.worker)},
          {"target_worker", std::to_string(peer.target_worker)}};
}

void write_targets(Exposition& out, const PeersReport& report) {
  const auto family = [&](const char* name, const char* type, const char* help, auto value) {
    out.family(name, type, help);
    for (const PeerReport& peer : report.peers) {
      if (peer.target) out.sample(labels_of(peer), value(peer));
    }
  };
  const auto traffic = [&](const char* name, const char* help, auto value) {
    family(name, "counter", help, [&](const PeerReport& peer) -> std::uint64_t {
      return peer.traffic == nullptr ? 0 : value(*peer.traffic).value();
    });
  };
  const auto adapter = [&](const char* name, const char* help, auto value) {
    family(name, "counter", help, [&](const PeerReport& peer) -> std::uint64_t {
      return peer.adapter == nullptr ? 0 : value(*peer.adapter).value();
    });
  };
  family("kelp_peer_up", "gauge", "1 while the target can be asked.",
         [](const PeerReport& peer) -> std::uint64_t { return peer.state == "up" ? 1 : 0; });
  family("kelp_peer_credits", "gauge", "Requests that the target takes at once.",
         [](const PeerReport& peer) -> std::uint64_t { return peer.slots; });
  family("kelp_peer_in_flight", "gauge", "Requests without an answer yet.",
         [](const PeerReport& peer) -> std::uint64_t {
           // relaxed: a number by itself.
           return peer.traffic == nullptr ? 0
                                          : peer.traffic->in_flight.load(std::memory_order_relaxed);
         });
  traffic("kelp_peer_answers_total", "Answers of the target that came in time.",
          [](const LinkCounters& link) -> const Counter& { return link.answers; });
  traffic("kelp_peer_late_total", "Answers that nobody waited for any more.",
          [](const LinkCounters& link) -> const Counter& { return link.late; });
  traffic("kelp_peer_bytes_total", "Payload bytes that the target sent.",
          [](const LinkCounters& link) -> const Counter& { return link.bytes; });
  adapter("kelp_peer_doorbells_total", "Calls that handed sends to the RDMA device.",
          [](const VerbsCounters& verbs) -> const Counter& { return verbs.doorbells; });
  out.family("kelp_peer_read_seconds", "summary", "From asking the target to its answer.");
  for (const PeerReport& peer : report.peers) {
    if (!peer.target || peer.traffic == nullptr) continue;
    const LinkCounters& link = *peer.traffic;
    out.summary(
        labels_of(peer), [&](double quantile) { return link.latency.quantile(quantile); },
        {0.5, 0.99}, link.answers.value());
  }
}

void write_connections(Exposition& out, const PeersReport& report) {
  const auto family = [&](const char* name, const char* help, auto value) {
    out.family(name, "counter", help);
    out.sample({{"path", "tcp"}}, value(report.by_tcp));
    if (report.by_rdma) out.sample({{"path", "verbs"}}, value(*report.by_rdma));
  };
  family("kelp_peer_accepted_total", "Connections of gateways that were let in.",
         [](const PeerCounters& counters) { return counters.accepted; });
  family("kelp_peer_refused_total", "Those that did not come to an agreement.",
         [](const PeerCounters& counters) { return counters.refused; });
  family("kelp_peer_connected_total", "Connections made to targets.",
         [](const PeerCounters& counters) { return counters.connected; });
  family("kelp_peer_failed_total", "Attempts at those that came to nothing.",
         [](const PeerCounters& counters) { return counters.failed; });
}

}  // namespace

void write_peer_metrics(Exposition& out, const PeersReport& report) {
  write_gateways(out, report);
  write_targets(out, report);
  write_connections(out, report);
  if (report.by_rdma) {
    out.single("kelp_rdma_pinned_bytes", "gauge", "Memory that is registered with RDMA devices.",
               report.pinned_bytes);
  }
}

void write_rdma_port_metrics(Exposition& out, const std::vector<RdmaPortCounters>& ports) {
  if (ports.empty()) return;
  out.family("kelp_rdma_port_counter_total", "counter",
             "What the driver of the device counts, by the names it gives.");
  for (const RdmaPortCounters& port : ports) {
    for (const auto& [name, value] : port.counters) {
      out.sample({{"device", port.device}, {"port", std::to_string(port.port)}, {"counter", name}},
                 value);
    }
  }
}

}  // namespace kelp
