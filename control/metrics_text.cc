// /metrics: the reports' numbers in Prometheus' text format.
#include <map>
#include <sstream>

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

}  // namespace

std::string metrics_text(const ReportSources& sources) {
  std::ostringstream out;
  head(out, "kelp_clients", "gauge", "Programs attached.");
  out << "kelp_clients " << sources.clients << '\n';
  write_counters(out, sources);
  write_latencies(out, sources);
  write_volumes(out, sources);
  return out.str();
}

}  // namespace kelp
