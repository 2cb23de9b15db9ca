#include "tools/peer_views.h"

#include <nlohmann/json.hpp>

#include "tools/cells.h"
#include "tools/json_fields.h"
#include "tools/table.h"

namespace kelp {
namespace {

using nlohmann::json;

/// One that is not up is bad once there is a reason, and until then it has just begun.
Tone link_tone(const std::string& state, const std::string& error) {
  if (state == "up") return Tone::kGood;
  return error.empty() || error == "-" ? Tone::kWarning : Tone::kBad;
}

/// What the connection that is up was agreed by; what an earlier one used is of no interest.
std::string key_text(const json& peer, bool up) {
  if (!up) return "-";
  return field_count(peer, "key_id") == 0 ? "none" : field_text(peer, "key_id");
}

/// Our worker comes first, whichever side we are. Which of its workers a gateway connects is not
/// reported.
void add_peer(const json& peer, Table& table) {
  const bool asks_us = field(peer, "role") == "gateway";
  const std::string state = field_text(peer, "state");
  const std::string error = field_text(peer, "error");
  const json& traffic = field(peer, "traffic");
  table.add({{field_text(peer, "address")},
             {field_text(peer, "role")},
             {field_text(peer, "path")},
             {field_text(peer, "node")},
             {field_text(peer, asks_us ? "target_worker" : "worker")},
             {asks_us ? "-" : field_text(peer, "target_worker")},
             {state, link_tone(state, error)},
             {key_text(peer, state == "up")},
             {state == "up" ? field_text(peer, "credits") : "-"},
             {field_text(traffic, "in_flight")},
             {field_text(traffic, "answers")},
             bytes_cell(traffic, "bytes"),
             {field_text(traffic, "p50_us")},
             {field_text(traffic, "p99_us")},
             {error == "-" ? "" : error}});
}

void add_connections(const json& counters, const std::string& by, FactList& facts) {
  facts.add("from gateways" + by, {field_text(counters, "accepted") + " accepted, " +
                                   field_text(counters, "refused") + " of them refused"});
  facts.add("to targets" + by, {field_text(counters, "connected") + " made, " +
                                field_text(counters, "failed") + " attempts failed"});
}

/// Among all that a driver counts: by rxe "send_rnr_err", "completer_retry_err", by mlx5
/// "local_ack_timeout_err", "roce_adp_retrans".
bool tells_of_retries(const std::string& counter) {
  return counter.find("rnr") != std::string::npos || counter.find("retr") != std::string::npos ||
         counter.find("timeout") != std::string::npos;
}

/// Adapters count by port, so all connections of one share these.
std::string port_retries(const json& ports, bool colour) {
  if (!ports.is_array()) return "";
  Table table({{"DEVICE"}, {"PORT", true}, {"COUNTER OF THE PORT"}, {"VALUE", true}});
  for (const json& port : ports) {
    const json& counters = field(port, "counters");
    if (!counters.is_object()) continue;
    for (const auto& [name, value] : counters.items()) {
      if (!tells_of_retries(name)) continue;
      table.add(
          {{field_text(port, "device")}, {field_text(port, "port")}, {name}, {cell_text(value)}});
    }
  }
  return table.empty() ? "" : "\n" + table.text(colour);
}

/// What is below the table of connections.
std::string peer_counts(const json& peers, bool colour) {
  const json& counters = field(peers, "counters");
  if (!counters.is_object()) return "";
  FactList facts;
  const json& by_rdma = field(peers, "rdma_counters");
  add_connections(counters, by_rdma.is_object() ? " by tcp" : "", facts);
  if (by_rdma.is_object()) {
    add_connections(by_rdma, " by verbs", facts);
    facts.add("pinned", bytes_cell(by_rdma, "pinned_bytes"));
  }
  return "\n" + facts.text(colour) + port_retries(field(peers, "rdma_ports"), colour);
}

}  // namespace

std::string view_peers(const json& peers, bool colour) {
  const json& list = field(peers, "peers");
  const json& counters = field(peers, "counters");
  if (!list.is_array()) return "no peers\n";
  if (list.empty() && counters.is_null()) {
    return "no peers: neither [peer] nor a gateway that could discover them is configured\n";
  }
  if (list.empty()) {
    return "no peers: no other kelpd is connected\n" + peer_counts(peers, colour);
  }
  Table table({{"ADDRESS"},
               {"ROLE"},
               {"PATH"},
               {"NODE"},
               {"WORKER", true},
               {"PEER WORKER", true},
               {"STATE"},
               {"KEY", true},
               {"CREDITS", true},
               {"IN FLIGHT", true},
               {"ANSWERS", true},
               {"BYTES", true},
               {"P50 (us)", true},
               {"P99 (us)", true},
               {"ERROR"}});
  for (const json& peer : list) add_peer(peer, table);
  return table.text(colour) + peer_counts(peers, colour);
}

}  // namespace kelp
