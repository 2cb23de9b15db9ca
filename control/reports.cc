#include "control/reports.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <utility>

#include "control/gateway_json.h"
#include "control/report_json.h"
#include "control/worker_metrics.h"

namespace kelp {
namespace {

using Json = ReportJson;

/// A value as ConfigKey::show writes it; nothing is null.
Json json_value(const std::string& shown) {
  if (shown.empty()) return nullptr;
  Json value = Json::parse(shown, nullptr, false);
  return value.is_discarded() ? Json(shown) : value;
}

double uptime_s(const ReportSources& sources) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - sources.started).count();
}

Json servers_json(const VolumeServerWatch& watch) {
  Json list = Json::array();
  for (const VolumeServerReport& server : watch.reports()) {
    Json entry;
    entry["url"] = server.url;
    entry["version"] = server.version;
    entry["trusted"] = server.trusted;
    entry["wants_token"] = server.wants_token;
    entry["volumes"] = server.listed;
    entry["last_answer"] = time_json(server.last_answer);
    entry["failing_since"] = time_json(server.failing_since);
    entry["failure"] = server.failure;
    list.push_back(std::move(entry));
  }
  return list;
}

struct StateCounts {
  std::size_t serving = 0;
  std::size_t revoked = 0;
  std::size_t loading = 0;
  std::size_t use_http = 0;
  std::size_t refused = 0;
};

StateCounts count_states(const std::vector<VolumeReport>& volumes) {
  StateCounts counts;
  for (const VolumeReport& volume : volumes) {
    switch (volume.state) {
      case VolumeState::kServing:
        ++(is_revoked(volume) ? counts.revoked : counts.serving);
        break;
      case VolumeState::kLoading:
        ++counts.loading;
        break;
      case VolumeState::kUseHttp:
        ++counts.use_http;
        break;
      case VolumeState::kRefused:
        ++counts.refused;
        break;
    }
  }
  return counts;
}

}  // namespace

const char* volume_state_name(VolumeState state) noexcept {
  switch (state) {
    case VolumeState::kLoading:
      return "loading";
    case VolumeState::kServing:
      return "serving";
    case VolumeState::kUseHttp:
      return "use_http";
    case VolumeState::kRefused:
      return "refused";
  }
  return "unknown";
}

bool is_revoked(const VolumeReport& volume) {
  return volume.state == VolumeState::kServing && volume.key.server != 0 &&
         (volume.attestation == nullptr || !volume.attestation->holds(ticks_now()));
}

std::vector<VolumeReport> volume_reports(const ReportSources& sources) {
  std::vector<VolumeReport> all;
  for (const Worker* worker : sources.workers) {
    for (VolumeReport& report : worker->loader().catalog().reports()) {
      all.push_back(std::move(report));
    }
  }
  // Each worker has its volumes in order, and they share them by turns.
  std::sort(all.begin(), all.end(),
            [](const VolumeReport& a, const VolumeReport& b) { return a.key < b.key; });
  return all;
}

std::string health_json(const ReportSources& sources) {
  const StateCounts counts = count_states(volume_reports(sources));
  // Every worker looks at every directory.
  std::map<std::string, DirectoryTrouble> troubles;
  for (const Worker* worker : sources.workers) {
    for (DirectoryTrouble& trouble : worker->loader().catalog().troubles()) {
      troubles.try_emplace(trouble.what, std::move(trouble));
    }
  }

  Json reasons = Json::array();
  for (const auto& [what, trouble] : troubles) reasons.push_back(what);
  if (counts.refused > 0) {
    reasons.push_back(std::to_string(counts.refused) + " volumes cannot be opened; see /volumes");
  }
  if (counts.revoked > 0) {
    reasons.push_back(std::to_string(counts.revoked) +
                      " volumes are not attested by their volume server; see /volumes");
  }
  for (const VolumeServerReport& server : sources.servers->reports()) {
    if (server.failing_since) {
      reasons.push_back("volume server " + server.url + " does not answer: " + server.failure);
    }
  }
  if (sources.gateway) {
    for (const std::string& trouble : gateway_troubles(*sources.gateway)) {
      reasons.push_back(trouble);
    }
  }
  const bool settled = std::all_of(sources.workers.begin(), sources.workers.end(),
                                   [](const Worker* each) { return each->loader().settled(); });
  if (!settled) reasons.push_back("the volume directories are still being read");
  if (sources.disabled) {
    reasons.push_back("disabled by an operator: every read is sent to HTTP (kelpctl enable)");
  }
  if (!sources.reload_error.empty()) {
    reasons.push_back("the last reload failed, the settings before it stay: " +
                      sources.reload_error);
  }
  const PeerConfig& peer = sources.config->peer;
  const bool peers_wanted = !peer.listen.empty() || !peer.kelpds.empty();
  if (peers_wanted && !sources.tcp_obstacle.empty()) reasons.push_back(sources.tcp_obstacle);
  if (sources.draining) reasons.push_back("draining: no new requests are taken");

  Json notes = Json::array();
  const TargetConfig& target = sources.config->target;
  if (!target.directories.empty()) {
    notes.push_back(
        target.volume_servers.empty()
            ? "volumes are served unattested: no volume server vouches for their directories"
            : "the volumes of " + std::to_string(target.directories.size()) +
                  " directories are served unattested: no volume server vouches for them");
  }
  if (!sources.hugepage_note.empty()) notes.push_back(sources.hugepage_note);
  if (!peers_wanted && !sources.tcp_obstacle.empty()) notes.push_back(sources.tcp_obstacle);

  std::size_t directories = target.directories.size();
  for (const TargetVolumeServer& server : target.volume_servers) directories += server.dirs.size();
  // Where there is a gateway it still reads what the directories would have.
  const bool failed = !sources.gateway && troubles.size() >= directories && counts.serving == 0 &&
                      !troubles.empty();
  Json health;
  health["status"] = failed ? "failed" : reasons.empty() ? "healthy" : "degraded";
  health["reasons"] = reasons;
  health["notes"] = notes;
  health["version"] = KELP_PROJECT_VERSION;
  health["pid"] = ::getpid();
  health["uptime_s"] = uptime_s(sources);
  health["workers"] = sources.workers.size();
  health["clients"] = sources.clients;
  health["volumes"] = {{"serving", counts.serving},
                       {"revoked", counts.revoked},
                       {"loading", counts.loading},
                       {"use_http", counts.use_http},
                       {"refused", counts.refused}};
  health["attested"] = target.directories.empty();
  health["volume_servers"] = servers_json(*sources.servers);
  health["gateway"] = gateway_health_json(sources.gateway);
  return report_text(health);
}

std::string volumes_json(const ReportSources& sources) {
  Json list = Json::array();
  for (const VolumeReport& volume : volume_reports(sources)) {
    const VolumeCounters& counters = *volume.counters;
    Json entry;
    entry["id"] = static_cast<std::uint32_t>(volume.key.id);
    entry["collection"] = volume.collection;
    const bool revoked = is_revoked(volume);
    const Standing* standing = sources.servers->standing(volume.key);
    entry["state"] = revoked ? "revoked" : volume_state_name(volume.state);
    entry["reason"] = revoked && standing != nullptr ? standing->reason : volume.reason;
    entry["attested"] = volume.key.server != 0 && volume.state == VolumeState::kServing && !revoked;
    entry["attested_since"] = nullptr;
    entry["revoked_since"] = nullptr;
    if (standing != nullptr) {
      entry[standing->attested ? "attested_since" : "revoked_since"] = time_json(standing->since);
    }
    entry["volume_server"] = nullptr;
    if (volume.key.server != 0) {
      entry["volume_server"] = sources.config->target.volume_servers[volume.key.server - 1].url;
    }
    entry["dir"] = volume.directory;
    entry["version"] = volume.version;
    entry["offset_bytes"] = counters.offset_width.load();
    entry["revision"] = volume.revision;
    entry["generation"] = counters.generation.load();
    entry["needles"] = counters.needles.load();
    entry["dat_bytes"] = volume.dat_bytes;
    entry["idx_bytes"] = counters.idx_bytes.load();
    entry["reads"] = counters.reads.load();
    entry["corrupt"] = counters.corrupt.load();
    list.push_back(std::move(entry));
  }
  return report_text({{"volumes", list}, {"remote", remote_volumes_json(sources.gateway)}});
}

std::string stats_json(const ReportSources& sources) {
  Json workers = Json::array();
  for (const Worker* worker : sources.workers) {
    Json entry;
    entry["id"] = worker->options().index;
    entry["cpu"] = worker->options().cpu < 0 ? Json(nullptr) : Json(worker->options().cpu);
    entry["polling"] = worker->options().always_poll ? "poll" : "adaptive";
    entry["cpu_time_s"] = static_cast<double>(worker->cpu_time_ns()) / 1e9;
    for (const WorkerMetric& metric : worker_metrics(*worker)) {
      const std::string name =
          metric.label.empty() ? metric.name : metric.name + "_" + metric.label;
      entry["counters"][name] = metric.value;
    }
    for (const auto& [name, histogram] : worker_histograms(*worker)) {
      const auto us = [&times = *histogram](double fraction) {
        return static_cast<double>(times.quantile(fraction)) / 1000.0;
      };
      entry["latency_us"][name] = {
          {"count", histogram->count()}, {"p50", us(0.5)}, {"p90", us(0.9)}, {"p99", us(0.99)},
          {"p999", us(0.999)},           {"max", us(1.0)}};
    }
    workers.push_back(std::move(entry));
  }
  return report_text({{"uptime_s", uptime_s(sources)},
                      {"workers", workers},
                      {"gateway", gateway_stats_json(sources.gateway)}});
}

std::string clients_json(const std::vector<ClientReport>& clients) {
  const auto now = std::chrono::system_clock::now();
  Json list = Json::array();
  for (const ClientReport& client : clients) {
    const auto attached_for = std::chrono::duration<double>(now - client.since).count();
    list.push_back({{"id", client.id},
                    {"name", client.name},
                    {"uid", client.uid},
                    {"gid", client.gid},
                    {"pid", client.pid},
                    {"attached_s", std::max(attached_for, 0.0)},
                    {"channels", client.channels},
                    {"rings", client.rings},
                    {"data_bytes", client.data_bytes},
                    {"page_bytes", client.page_bytes},
                    {"in_flight", client.in_flight},
                    {"in_flight_bytes", client.in_flight_bytes},
                    {"leaving", client.leaving}});
  }
  return report_text({{"clients", list}});
}

std::string config_json(const ReportSources& sources) {
  Json items = Json::array();
  for (const ConfigOrigin& item : sources.config->origins) {
    Json entry{{"key", item.key},
               {"value", json_value(item.value)},
               {"origin", item.origin},
               {"reloadable", item.reloadable}};
    if (!item.after_restart.empty()) entry["after_restart"] = json_value(item.after_restart);
    items.push_back(std::move(entry));
  }
  return report_text({{"items", items}});
}

std::string reload_json(const ConfigReload& reload) {
  const auto list = [](const std::vector<ConfigChange>& changes) {
    Json array = Json::array();
    for (const ConfigChange& change : changes) {
      array.push_back(
          {{"key", change.key}, {"from", json_value(change.from)}, {"to", json_value(change.to)}});
    }
    return array;
  };
  return report_text(
      {{"applied", list(reload.applied)}, {"needs_restart", list(reload.needs_restart)}});
}

}  // namespace kelp
