// The gateway's part of the reports: JSON of a GatewayReport, and its counters with their
// sentences, once for /stats and /metrics. Pure functions, any thread.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "control/gateway/gateway_report.h"
#include "control/report_json.h"

namespace kelp {

struct GatewayMetric {
  const char* name;  ///< "lookups"
  const char* help;
  std::uint64_t value;
  bool gauge = false;  ///< goes down, too
};

std::vector<GatewayMetric> gateway_metrics(const GatewayCounters& counters);

/// Why the daemon is degraded by what lies behind the gateway; empty: it is not.
std::vector<std::string> gateway_troubles(const GatewayReport& gateway);

/// For /health: {"masters": [...], "servers": [...]}; null without a gateway.
ReportJson gateway_health_json(const std::optional<GatewayReport>& gateway);

/// For /stats: {"counters": {...}, "servers": [...]}; null without a gateway.
ReportJson gateway_stats_json(const std::optional<GatewayReport>& gateway);

/// For /volumes: [{"id", "known", "error", "age_s", "locations": [...]}]
ReportJson remote_volumes_json(const std::optional<GatewayReport>& gateway);

/// {"url", "public_url", "data_center"}
ReportJson location_json(const Location& location);

}  // namespace kelp
