// /metrics: the reports' numbers in Prometheus' text format.
#include <map>
#include <sstream>

#include "control/gateway_json.h"
#include "control/reports.h"
#include "control/worker_metrics.h"

namespace kelp {
namespace {

/// Label values here are numbers and our own words; nothing needs escaping.
void head(std::ostringstream& out, const std::string& name, const char* type, const char* help) {
  out << "# HELP " << name << ' ' << help << "\n# TYPE " << name << ' ' << type << '\n';
}

void write_counters(std::ostringstream& out, const ReportSources& sources) {
  // Samples of a family have to stand together, over all workers.
  std::map<std::string, std::string> samples;
  std::map<std::string, const char*> helps;
  for (const Worker* worker : sources.workers) {
    const std::string id = std::to_string(worker->options().index);
    for (const WorkerMetric& metric : worker_metrics(*worker)) {
      const std::string name = "kelp_worker_" + metric.name + "_total";
      helps[name] = metric.help;
      samples[name] += name + "{worker=\"" + id + '"' +
                       (metric.label.empty() ? "" : ",status=\"" + metric.label + '"') + "} " +
                       std::to_string(metric.value) + '\n';
    }
  }
  for (const auto& [name, lines] : samples) {
    head(out, name, "counter", helps[name]);
    out << lines;
  }
}

void write_latencies(std::ostringstream& out, const ReportSources& sources) {
  const std::string name = "kelp_worker_service_seconds";
  head(out, name, "summary", "From taking a request to publishing its completion.");
  for (const Worker* worker : sources.workers) {
    for (const auto& [op, histogram] : worker_histograms(*worker)) {
      const std::string labels =
          "worker=\"" + std::to_string(worker->options().index) + "\",op=\"" + op + '"';
      for (const char* quantile : {"0.5", "0.9", "0.99", "0.999"}) {
        out << name << '{' << labels << ",quantile=\"" << quantile << "\"} "
            << static_cast<double>(histogram->quantile(std::stod(quantile))) / 1e9 << '\n';
      }
      out << name << "_count{" << labels << "} " << histogram->count() << '\n';
    }
  }
}

void write_volumes(std::ostringstream& out, const ReportSources& sources) {
  const auto volumes = volume_reports(sources);
  const auto family = [&](const char* name, const char* type, const char* help, auto value) {
    head(out, name, type, help);
    for (const VolumeReport& volume : volumes) {
      out << name << "{volume=\"" << static_cast<std::uint32_t>(volume.key.id) << '"';
      // A configured URL holds nothing that would need escaping.
      if (volume.key.server != 0) {
        out << ",server=\"" << sources.config->target.volume_servers[volume.key.server - 1].url
            << '"';
      }
      out << "} " << value(volume) << '\n';
    }
  };
  family("kelp_volume_serving", "gauge", "1 while the volume is read from its files.",
         [](const VolumeReport& v) {
           return v.state == VolumeState::kServing && !is_revoked(v) ? 1 : 0;
         });
  family("kelp_volume_needles", "gauge", "Live needles in the index.",
         [](const VolumeReport& v) { return v.counters->needles.load(); });
  family("kelp_volume_reads_total", "counter", "Reads of the volume.",
         [](const VolumeReport& v) { return v.counters->reads.load(); });
  family("kelp_volume_corrupt_total", "counter", "Reads that found a record that does not fit.",
         [](const VolumeReport& v) { return v.counters->corrupt.load(); });
}

void write_gateway_counters(std::ostringstream& out, const GatewayCounters& counters) {
  for (const GatewayMetric& metric : gateway_metrics(counters)) {
    const std::string name =
        std::string("kelp_gateway_") + metric.name + (metric.gauge ? "" : "_total");
    head(out, name, metric.gauge ? "gauge" : "counter", metric.help);
    out << name << ' ' << metric.value << '\n';
  }
}

/// A label's value that comes from elsewhere, as a master's word for a server does.
std::string escaped(const std::string& value) {
  std::string text;
  for (const char c : value) {
    if (c == '\\' || c == '"') text += '\\';
    text += c == '\n' ? "\\n" : std::string(1, c);
  }
  return text;
}

int breaker_level(const RemoteServerReport& server) {
  if (server.breaker == "closed") return 0;
  return server.breaker == "half-open" ? 1 : 2;
}

void write_gateway_servers(std::ostringstream& out,
                           const std::vector<RemoteServerReport>& servers) {
  const auto labels = [](const RemoteServerReport& server) {
    return "server=\"" + escaped(server.server) + "\",path=\"" + escaped(server.path) + '"';
  };
  const auto family = [&](const std::string& name, const char* type, const char* help, auto value) {
    head(out, name, type, help);
    for (const RemoteServerReport& server : servers) {
      out << name << '{' << labels(server) << "} " << value(server) << '\n';
    }
  };
  using Server = RemoteServerReport;
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
  const std::string name = "kelp_gateway_server_read_seconds";
  head(out, name, "summary", "From an attempt's start to the end of its answer.");
  for (const Server& server : servers) {
    for (const auto& [quantile, ns] : {std::pair{"0.5", server.p50_ns}, {"0.99", server.p99_ns}}) {
      out << name << '{' << labels(server) << ",quantile=\"" << quantile << "\"} "
          << static_cast<double>(ns) / 1e9 << '\n';
    }
    out << name << "_count{" << labels(server) << "} " << server.reads << '\n';
  }
}

}  // namespace

std::string metrics_text(const ReportSources& sources) {
  std::ostringstream out;
  head(out, "kelp_clients", "gauge", "Programs attached.");
  out << "kelp_clients " << sources.clients << '\n';
  write_counters(out, sources);
  write_latencies(out, sources);
  write_volumes(out, sources);
  if (sources.gateway) {
    write_gateway_counters(out, sources.gateway->counters);
    write_gateway_servers(out, sources.gateway->servers);
  }
  return out.str();
}

}  // namespace kelp
