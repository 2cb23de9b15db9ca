// What the reports draw from, without a worker: a configuration, no volume server, and whatever
// the test says of the gateway.
#pragma once

#include <chrono>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "control/reports.h"

namespace kelp::test {

struct ReportsScene {
  Config config;
  std::unique_ptr<VolumeServerWatch> watch = VolumeServerWatch::create({}, [](std::uint32_t) {
                                               return std::vector<std::shared_ptr<Attestation>>();
                                             }).value();
  ReportSources sources;

  ReportsScene() {
    sources.config = &config;
    sources.servers = watch.get();
  }
  ReportsScene(const ReportsScene&) = delete;

  /// The gateway's report, made at the first call.
  GatewayReport& gateway() {
    if (!sources.gateway) sources.gateway.emplace();
    return *sources.gateway;
  }
};

/// 2024-01-01 00:00:00.5 UTC
inline WallTime some_time() {
  return WallTime(std::chrono::milliseconds(1704067200500));
}

inline RemoteServerReport server_of(const std::string& name, const std::string& breaker,
                                    const std::string& reason = "") {
  RemoteServerReport server;
  server.server = name;
  server.path = "http";
  server.breaker = breaker;
  server.reason = reason;
  return server;
}

}  // namespace kelp::test
