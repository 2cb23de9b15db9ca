#include "control/trace_report.h"

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

#include "control/gateway_json.h"
#include "control/report_json.h"

namespace kelp {
namespace {

using Json = ReportJson;

std::string hex(unsigned long long value, int digits) {
  char text[24];
  std::snprintf(text, sizeof text, "%0*llx", digits, value);
  return text;
}

// ---- local ------------------------------------------------------------------------------------

int rank_of(const VolumeReport& volume) {
  switch (volume.state) {
    case VolumeState::kServing:
      return is_revoked(volume) ? 1 : 4;
    case VolumeState::kLoading:
      return 3;
    case VolumeState::kUseHttp:
      return 2;
    case VolumeState::kRefused:
      break;
  }
  return 0;
}

/// The copy a worker would read, as Worker::choose_slot() does: a server's before a directory's,
/// and of several servers the first that serves. Null: none is here.
const VolumeReport* find_local(const std::vector<VolumeReport>& volumes, VolumeId id) {
  const VolumeReport* best = nullptr;
  for (const VolumeReport& volume : volumes) {
    if (volume.key.id != id) continue;
    const bool vouched = volume.key.server != 0;
    const bool displaced = best != nullptr && best->key.server != 0 && !vouched;
    if (displaced) continue;
    const bool displaces = best == nullptr || (best->key.server == 0 && vouched);
    if (displaces || rank_of(volume) > rank_of(*best)) best = &volume;
  }
  return best;
}

struct LocalPath {
  std::string state;
  std::string reason;  ///< "" while it serves
  bool usable = false;
};

bool wants_token(const VolumeReport& volume, const ReportSources& sources) {
  if (volume.key.server == 0 || sources.config->target.trust_local_clients) return false;
  const auto servers = sources.servers->reports();
  return volume.key.server <= servers.size() && servers[volume.key.server - 1].wants_token;
}

LocalPath judge_local(const VolumeReport* volume, const ReportSources& sources) {
  if (volume == nullptr) return {"absent", "not on this host", false};
  if (is_revoked(*volume)) {
    const Standing* standing = sources.servers->standing(volume->key);
    return {"revoked",
            "not attested by its volume server" +
                (standing != nullptr && !standing->reason.empty() ? ": " + standing->reason : ""),
            false};
  }
  const std::string state = volume_state_name(volume->state);
  if (volume->state != VolumeState::kServing) {
    const bool loading = volume->state == VolumeState::kLoading && volume->reason.empty();
    return {state, loading ? "its index is being read" : volume->reason, false};
  }
  if (wants_token(*volume, sources)) {
    return {state, "its volume server wants a read token", false};
  }
  return {state, "", true};
}

Json local_json(const VolumeReport* volume, const LocalPath& path, const ReportSources& sources) {
  Json local{{"state", path.state},
             {"attested", false},
             {"reason", path.reason},
             {"volume_server", nullptr},
             {"dir", nullptr}};
  if (volume == nullptr) return local;
  local["dir"] = volume->directory;
  if (volume->key.server == 0) return local;
  local["attested"] = volume->state == VolumeState::kServing && !is_revoked(*volume);
  local["volume_server"] = sources.config->target.volume_servers[volume->key.server - 1].url;
  return local;
}

// ---- remote -----------------------------------------------------------------------------------

const RemoteVolumeReport* find_remote(const GatewayReport& gateway, VolumeId id) {
  for (const RemoteVolumeReport& volume : gateway.volumes) {
    if (volume.id == static_cast<std::uint32_t>(id)) return &volume;
  }
  return nullptr;
}

/// One place of the volume, and what is known of its server.
struct Place {
  Location location;
  std::string breaker;  ///< "": nothing was read there yet
  std::string reason;

  bool usable() const { return breaker != "open"; }
  std::string why() const {
    if (breaker.empty() || breaker == "closed") return "";
    return breaker + (reason.empty() ? "" : ": " + reason);
  }
};

bool is_of_this_host(const Location& location, const TargetConfig& target) {
  return std::any_of(target.volume_servers.begin(), target.volume_servers.end(),
                     [&](const TargetVolumeServer& server) {
                       std::string_view url = server.url;
                       const std::size_t scheme = url.find("://");
                       if (scheme != std::string_view::npos) url.remove_prefix(scheme + 3);
                       return url == location.url;
                     });
}

/// In the order they would be tried, as far as it does not change from read to read: those that
/// work, then those of this host, then those of the preferred data center.
std::vector<Place> places_of(const RemoteVolumeReport& volume, const GatewayReport& gateway,
                             const Config& config) {
  std::vector<Place> places;
  for (const Location& location : volume.locations) {
    Place place{location, "", ""};
    for (const RemoteServerReport& server : gateway.servers) {
      if (server.server != location.url || server.path != "http") continue;
      place.breaker = server.breaker;
      place.reason = server.reason;
    }
    places.push_back(std::move(place));
  }
  const auto rank = [&](const Place& place) {
    const int trouble = !place.usable() ? 2 : place.breaker == "half-open" ? 1 : 0;
    const std::string& wanted = config.gateway.data_center;
    const bool near = wanted.empty() || place.location.data_center == wanted;
    return std::pair{trouble, is_of_this_host(place.location, config.target) ? 0 : near ? 1 : 2};
  };
  std::stable_sort(places.begin(), places.end(),
                   [&](const Place& a, const Place& b) { return rank(a) < rank(b); });
  return places;
}

Json remote_json(const RemoteVolumeReport& volume, const std::vector<Place>& places) {
  Json locations = Json::array();
  for (const Place& place : places) {
    Json entry = location_json(place.location);
    entry["breaker"] = place.breaker.empty() ? Json(nullptr) : Json(place.breaker);
    entry["reason"] = place.reason;
    locations.push_back(std::move(entry));
  }
  return {{"known", volume.known},
          {"error", volume.error},
          {"age_s", volume.age_s},
          {"locations", locations}};
}

// ---- paths ------------------------------------------------------------------------------------

/// Why nothing is read at all; "": nothing stands in the way.
std::string why_nothing(const ReportSources& sources) {
  if (sources.draining) return "draining: no new requests are taken";
  if (sources.disabled) return "disabled by an operator (kelpctl enable)";
  return "";
}

class Paths {
 public:
  explicit Paths(std::string obstacle) : obstacle_(std::move(obstacle)) {}

  void add(const char* path, Json server, bool usable, const std::string& why) {
    if (usable && !obstacle_.empty()) {
      list_.push_back(entry(path, std::move(server), false, obstacle_));
    } else {
      list_.push_back(entry(path, std::move(server), usable, why));
    }
  }
  Json list() && { return std::move(list_); }

 private:
  static Json entry(const char* path, Json server, bool usable, const std::string& why) {
    return {{"path", path}, {"server", std::move(server)}, {"usable", usable}, {"why", why}};
  }

  const std::string obstacle_;
  Json list_ = Json::array();
};

}  // namespace

std::string trace_json(const FileId& fid, const std::vector<VolumeReport>& volumes,
                       const ReportSources& sources) {
  const VolumeReport* here = find_local(volumes, fid.volume);
  const LocalPath local = judge_local(here, sources);
  Paths paths(why_nothing(sources));
  paths.add("local", nullptr, local.usable, local.reason);

  Json remote = nullptr;
  const RemoteVolumeReport* away =
      sources.gateway ? find_remote(*sources.gateway, fid.volume) : nullptr;
  const bool resolving = sources.gateway && away == nullptr;
  if (!sources.gateway) {
    paths.add("http", nullptr, false, "there is no gateway: no master is configured");
  } else if (resolving) {
    paths.add("http", nullptr, false, "a master is being asked where the volume is");
  } else {
    const std::vector<Place> places = places_of(*away, *sources.gateway, *sources.config);
    remote = remote_json(*away, places);
    for (const Place& place : places) {
      paths.add("http", place.location.url, place.usable(), place.why());
    }
    if (places.empty()) {
      paths.add("http", nullptr, false,
                away->error.empty() ? "a master names no volume server for it" : away->error);
    }
  }
  return report_text({{"fid", format_file_id(fid)},
                      {"volume", static_cast<std::uint32_t>(fid.volume)},
                      {"needle", hex(static_cast<std::uint64_t>(fid.needle), 1)},
                      {"cookie", hex(static_cast<std::uint32_t>(fid.cookie), 8)},
                      {"local", local_json(here, local, sources)},
                      {"remote", remote},
                      {"paths", std::move(paths).list()},
                      {"resolving", resolving}});
}

std::string trace_json(const FileId& fid, const ReportSources& sources) {
  return trace_json(fid, volume_reports(sources), sources);
}

}  // namespace kelp
