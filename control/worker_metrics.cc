#include "control/worker_metrics.h"

#include "shm_ring/kelp.h"

namespace kelp {

std::vector<WorkerMetric> worker_metrics(const Worker& worker) {
  const WorkerCounters& c = worker.counters();
  std::vector<WorkerMetric> metrics{
      {"polls", "", "Turns of the polling loop.", c.polls.value()},
      {"idle_polls", "", "Turns that found nothing to do.", c.idle_polls.value()},
      {"sleeps", "", "Times the worker slept.", c.sleeps.value()},
      {"client_wakes", "", "System calls that woke a client.", c.client_wakes.value()},
      {"reads", "", "Read requests taken.", c.reads.value()},
      {"stats", "", "Stat requests taken.", c.stats.value()},
      {"nops", "", "No-op requests taken.", c.nops.value()},
      {"forwarded", "", "Requests handed to the worker that owns the volume.", c.forwarded.value()},
      {"peer_reads", "", "Requests asked of the kelpd of another host.", c.peer_reads.value()},
      {"peer_requests", "", "Requests taken of gateways of other hosts.", c.peer_requests.value()},
      {"peer_late", "", "Answers of other hosts that nobody waited for any more.",
       c.peer_late.value()},
      {"hedges", "", "Of those, tried a second way since the kelpd did not answer.",
       c.hedges.value()},
      {"hedges_won", "", "Of those, answered that way.", c.hedges_won.value()},
      {"crc_errors", "", "Answers of other hosts whose bytes did not fit their checksum.",
       c.crc_errors.value()},
      {"bytes", "", "Payload bytes delivered.", c.bytes.value()},
      {"cache_hits", "", "Reads served from needles kept in memory.", c.cache_hits.value()},
      {"cache_kept", "", "Needles put into that memory.", c.cache_kept.value()},
      {"storage_inline", "", "Reads served without leaving the worker.", c.storage_inline.value()},
      {"storage_waits", "", "Reads that had to wait for storage.", c.storage_waits.value()},
      {"private_inline", "", "Needles inflated or checked again on the worker.",
       c.private_inline.value()},
      {"private_handed_over", "", "Needles inflated or checked again by the loader.",
       c.private_handed_over.value()},
      {"given_up", "", "Reads of storage or loader given up because nobody waited any more.",
       c.given_up.value()},
      {"restarts", "", "Reads begun again because the volume had changed under them.",
       c.restarts.value()},
      {"volume_waits", "", "Reads that waited for an index to be loaded.", c.volume_waits.value()},
      {"revocations", "", "Closes of watched files, after each of which a volume is attested anew.",
       c.revocations.value()},
      {"unattested_reads", "", "Reads sent away since no volume server vouched for the volume.",
       c.unattested_reads.value()},
      {"buffers_held", "", "Deadlines that passed while bytes could still land.",
       c.buffers_held.value()},
      {"buffers_released", "", "Held buffers let go.", c.buffers_released.value()},
      {"rings_condemned", "", "Rings cut off for breaking the protocol.",
       c.rings_condemned.value()},
      {"faults_slept_over", "",
       "Times the worker fell asleep over a fault in a client's memory; that client's reads are "
       "the "
       "storage thread's for a second.",
       c.faults_slept_over.value()},
      {"clients_condemned", "", "Clients cut off for taking pages out of their memory.",
       c.clients_condemned.value()},
  };
  for (std::size_t status = 0; status < c.completions.size(); ++status) {
    const std::uint64_t value = c.completions[status].value();
    const char* name = kelp_status_name(static_cast<kelp_status>(status));
    if (value == 0 && status != KELP_OK) continue;
    metrics.push_back({"completions", name, "Completions by status.", value});
  }
  return metrics;
}

std::vector<std::pair<std::string, const Histogram*>> worker_histograms(const Worker& worker) {
  const WorkerLatencies& latencies = worker.latencies();
  return {{"read", &latencies.read}, {"stat", &latencies.stat}, {"nop", &latencies.nop}};
}

}  // namespace kelp
