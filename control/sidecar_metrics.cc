#include "control/sidecar_metrics.h"

#include "shm_ring/kelp.h"

namespace kelp {

void write_sidecar_metrics(Exposition& out, const sidecar::Counters& counters) {
  const auto single = [&](const char* name, const char* help, const Counter& counter) {
    out.single(name, "counter", help, counter.value());
  };
  single("kelp_sidecar_requests_total", "Requests to the HTTP read API.", counters.requests);
  single("kelp_sidecar_refused_total", "Those answered with 4xx.", counters.refused);
  single("kelp_sidecar_failed_total", "Those answered with 5xx.", counters.failed);
  single("kelp_sidecar_broken_off_total", "Answers that ended before their Content-Length.",
         counters.broken_off);
  single("kelp_sidecar_connections_total", "Connections that were accepted.", counters.connections);
  single("kelp_sidecar_shed_total", "Those closed because others needed what they held.",
         counters.shed);
  single("kelp_sidecar_timed_out_total", "Those closed because they were silent or slow.",
         counters.timed_out);
  single("kelp_sidecar_temp_files_total", "Answers that named a temporary file.",
         counters.temp_offered);
  single("kelp_sidecar_temp_files_refused_total", "Those that found no room for one.",
         counters.temp_refused);
  const auto by_path = [&](const char* name, const char* help, const auto& values) {
    out.family(name, "counter", help);
    for (std::size_t path = KELP_PATH_LOCAL; path < values.size(); ++path) {
      out.sample({{"path", kelp_path_name(static_cast<kelp_path>(path))}}, values[path].value());
    }
  };
  by_path("kelp_sidecar_reads_total", "Reads answered with bytes.", counters.reads);
  by_path("kelp_sidecar_bytes_total", "Their bytes.", counters.bytes);
}

}  // namespace kelp
