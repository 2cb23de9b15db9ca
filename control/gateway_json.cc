#include "control/gateway_json.h"

#include <algorithm>

namespace kelp {
namespace {

ReportJson server_json(const RemoteServerReport& server) {
  return {{"server", server.server},
          {"path", server.path},
          {"breaker", server.breaker},
          {"reason", server.reason},
          {"failing_since_s", time_json(server.failing_since)},
          {"reads", server.reads},
          {"failures", server.failures},
          {"bytes", server.bytes},
          {"p50_us", static_cast<double>(server.p50_ns) / 1e3},
          {"p99_us", static_cast<double>(server.p99_ns) / 1e3}};
}

ReportJson servers_json(const std::vector<RemoteServerReport>& servers) {
  ReportJson list = ReportJson::array();
  for (const RemoteServerReport& server : servers) list.push_back(server_json(server));
  return list;
}

ReportJson master_json(const MasterReport& master) {
  return {{"url", master.url},
          {"asked", master.asked},
          {"failures", master.failures},
          {"last_answer_s", time_json(master.last_answer)},
          {"failing_since_s", time_json(master.failing_since)},
          {"failure", master.failure}};
}

std::string because(const std::string& reason) {
  return reason.empty() ? "" : ": " + reason;
}

}  // namespace

std::vector<GatewayMetric> gateway_metrics(const GatewayCounters& c) {
  return {
      {"requests", "Reads that workers handed to the gateway.", c.requests},
      {"answered", "Of those, answered with the needle.", c.answered},
      {"failed", "Of those, answered with anything else.", c.failed},
      {"in_flight", "Of those, not answered yet.", c.in_flight, true},
      {"retries", "Attempts after the first of a read.", c.retries},
      {"retries_refused", "Attempts not made since the retry budget was spent.", c.retries_refused},
      {"cancelled", "Reads given up since the client was gone.", c.cancelled},
      {"servers_refused", "Volume servers named by a caller and not allowed.", c.servers_refused},
      {"redirects_refused", "Answers that sent the gateway to another server.",
       c.redirects_refused},
      {"lookups", "Questions to masters where a volume is.", c.lookups},
      {"lookups_coalesced", "Reads that waited for a question that was under way.",
       c.lookups_coalesced},
  };
}

std::vector<std::string> gateway_troubles(const GatewayReport& gateway) {
  std::vector<std::string> troubles;
  const std::vector<MasterReport>& masters = gateway.masters;
  const bool all_fail = std::all_of(masters.begin(), masters.end(), [](const MasterReport& each) {
    return each.failing_since.has_value();
  });
  if (!masters.empty() && all_fail) {
    std::string what = "no master answers, volumes whose place is not known cannot be read";
    for (const MasterReport& master : masters) what += "; " + master.url + because(master.failure);
    troubles.push_back(std::move(what));
  }
  for (const RemoteServerReport& server : gateway.servers) {
    if (server.breaker == "closed") continue;
    troubles.push_back("volume server " + server.server + " is avoided by " + server.path + " (" +
                       server.breaker + ")" + because(server.reason));
  }
  return troubles;
}

ReportJson gateway_health_json(const std::optional<GatewayReport>& gateway) {
  if (!gateway) return nullptr;
  ReportJson masters = ReportJson::array();
  for (const MasterReport& master : gateway->masters) masters.push_back(master_json(master));
  return {{"masters", masters}, {"servers", servers_json(gateway->servers)}};
}

ReportJson gateway_stats_json(const std::optional<GatewayReport>& gateway) {
  if (!gateway) return nullptr;
  ReportJson counters;
  for (const GatewayMetric& metric : gateway_metrics(gateway->counters)) {
    counters[metric.name] = metric.value;
  }
  return {{"counters", counters}, {"servers", servers_json(gateway->servers)}};
}

ReportJson remote_volumes_json(const std::optional<GatewayReport>& gateway) {
  ReportJson list = ReportJson::array();
  if (!gateway) return list;
  for (const RemoteVolumeReport& volume : gateway->volumes) {
    ReportJson locations = ReportJson::array();
    for (const Location& location : volume.locations) locations.push_back(location_json(location));
    list.push_back({{"id", volume.id},
                    {"known", volume.known},
                    {"error", volume.error},
                    {"age_s", volume.age_s},
                    {"locations", locations}});
  }
  return list;
}

ReportJson location_json(const Location& location) {
  return {{"url", location.url},
          {"public_url", location.public_url},
          {"data_center", location.data_center}};
}

}  // namespace kelp
