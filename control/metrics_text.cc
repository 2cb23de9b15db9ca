// /metrics: the reports' numbers in Prometheus' text format.
#include <map>

#include "control/exposition.h"
#include "control/gateway_json.h"
#include "control/peer_metrics.h"
#include "control/reports.h"
#include "control/sidecar_metrics.h"
#include "control/worker_metrics.h"

namespace kelp {
namespace {

std::string index_of(const Worker& worker) {
  return std::to_string(worker.options().index);
}

void write_counters(Exposition& out, const ReportSources& sources) {
  struct Family {
    const char* help;
    std::vector<std::pair<Exposition::Labels, std::uint64_t>> samples;
  };
  // Samples of a family have to stand together, over all workers.
  std::map<std::string, Family> families;
  for (const Worker* worker : sources.workers) {
    for (const WorkerMetric& metric : worker_metrics(*worker)) {
      Family& family = families["kelp_worker_" + metric.name + "_total"];
      family.help = metric.help;
      Exposition::Labels labels = {{"worker", index_of(*worker)}};
      if (!metric.label.empty()) labels.emplace_back("status", metric.label);
      family.samples.emplace_back(std::move(labels), metric.value);
    }
  }
  for (const auto& [name, family] : families) {
    out.family(name, "counter", family.help);
    for (const auto& [labels, value] : family.samples) out.sample(labels, value);
  }
}

void write_latencies(Exposition& out, const ReportSources& sources) {
  out.family("kelp_worker_service_seconds", "summary",
             "From taking a request to publishing its completion.");
  for (const Worker* worker : sources.workers) {
    for (const auto& [op, histogram] : worker_histograms(*worker)) {
      out.summary(
          {{"worker", index_of(*worker)}, {"op", op}},
          [served = histogram](double quantile) { return served->quantile(quantile); },
          {0.5, 0.9, 0.99, 0.999}, histogram->count());
    }
  }
}

void write_volumes(Exposition& out, const ReportSources& sources) {
  const auto volumes = volume_reports(sources);
  const auto family = [&](const char* name, const char* type, const char* help, auto value) {
    out.family(name, type, help);
    for (const VolumeReport& volume : volumes) {
      Exposition::Labels labels = {
          {"volume", std::to_string(static_cast<std::uint32_t>(volume.key.id))}};
      if (volume.key.server != 0) {
        labels.emplace_back("server",
                            sources.config->target.volume_servers[volume.key.server - 1].url);
      }
      out.sample(labels, value(volume));
    }
  };
  family("kelp_volume_serving", "gauge", "1 while the volume is read from its files.",
         [](const VolumeReport& v) -> std::uint64_t {
           return v.state == VolumeState::kServing && !is_revoked(v) ? 1 : 0;
         });
  family("kelp_volume_needles", "gauge", "Live needles in the index.",
         [](const VolumeReport& v) { return v.counters->needles.load(); });
  family("kelp_volume_reads_total", "counter", "Reads of the volume.",
         [](const VolumeReport& v) { return v.counters->reads.load(); });
  family("kelp_volume_corrupt_total", "counter", "Reads that found a record that does not fit.",
         [](const VolumeReport& v) { return v.counters->corrupt.load(); });
}

void write_gateway_counters(Exposition& out, const GatewayCounters& counters) {
  for (const GatewayMetric& metric : gateway_metrics(counters)) {
    out.single(std::string("kelp_gateway_") + metric.name + (metric.gauge ? "" : "_total"),
               metric.gauge ? "gauge" : "counter", metric.help, metric.value);
  }
}

std::uint64_t breaker_level(const RemoteServerReport& server) {
  if (server.breaker == "closed") return 0;
  return server.breaker == "half-open" ? 1 : 2;
}

void write_gateway_servers(Exposition& out, const std::vector<RemoteServerReport>& servers) {
  using Server = RemoteServerReport;
  const auto labels = [](const Server& server) -> Exposition::Labels {
    return {{"server", server.server}, {"path", server.path}};
  };
  const auto family = [&](const char* name, const char* type, const char* help, auto value) {
    out.family(name, type, help);
    for (const Server& server : servers) out.sample(labels(server), value(server));
  };
  family("kelp_gateway_server_reads_total", "counter", "Attempts that the server answered.",
         [](const Server& s) { return s.reads; });
  family("kelp_gateway_server_failures_total", "counter",
         "Attempts without an answer that makes sense.",
         [](const Server& s) { return s.failures; });
  family("kelp_gateway_server_bytes_total", "counter", "Payload bytes delivered.",
         [](const Server& s) { return s.bytes; });
  family("kelp_gateway_server_breaker", "gauge",
         "0: closed, reads go there; 1: half-open, one finds out; 2: open, none does.",
         &breaker_level);
  out.family("kelp_gateway_server_read_seconds", "summary",
             "From an attempt's start to the end of its answer.");
  for (const Server& server : servers) {
    out.summary(
        labels(server),
        [&](double quantile) { return quantile < 0.9 ? server.p50_ns : server.p99_ns; },
        {0.5, 0.99}, server.reads);
  }
}

}  // namespace

std::string metrics_text(const ReportSources& sources) {
  Exposition out;
  out.single("kelp_clients", "gauge", "Programs attached.", sources.clients);
  write_counters(out, sources);
  write_latencies(out, sources);
  write_volumes(out, sources);
  if (sources.gateway) {
    write_gateway_counters(out, sources.gateway->counters);
    write_gateway_servers(out, sources.gateway->servers);
  }
  if (sources.peers) write_peer_metrics(out, *sources.peers);
  write_rdma_port_metrics(out, sources.rdma_ports);
  if (sources.sidecar != nullptr) write_sidecar_metrics(out, *sources.sidecar);
  return out.text();
}

}  // namespace kelp
