#include "control/volume_status.h"

#include <limits>
#include <nlohmann/json.hpp>

namespace kelp {
namespace {

using Json = nlohmann::json;

template <class Number>
std::optional<Number> number(const Json& object, const char* name) {
  const auto found = object.find(name);
  if (found == object.end() || !found->is_number_unsigned()) return std::nullopt;
  const auto value = found->get<std::uint64_t>();
  if (value > std::numeric_limits<Number>::max()) return std::nullopt;
  return static_cast<Number>(value);
}

std::string text(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

void take_entry(const Json& entry, VolumeServerStatus& status) {
  if (!entry.is_object()) return;
  const auto id = number<std::uint32_t>(entry, "Id");
  const auto revision = number<std::uint16_t>(entry, "CompactRevision");
  const auto version = number<std::uint8_t>(entry, "Version");
  const auto collection = entry.find("Collection");
  if (!id || !revision || !version || collection == entry.end() || !collection->is_string()) {
    return;
  }
  ListedVolume listed;
  listed.collection = collection->get<std::string>();
  listed.revision = *revision;
  listed.version = *version;
  listed.remote = !text(entry, "RemoteStorageName").empty();
  listed.disk = number<std::uint32_t>(entry, "DiskId");
  const auto [known, added] = status.volumes.emplace(VolumeId{*id}, listed);
  if (!added && listed.disk && known->second.disk > listed.disk) known->second = listed;
}

}  // namespace

Result<VolumeServerStatus> parse_volume_status(std::string_view json) {
  const Json document = Json::parse(json, nullptr, false);
  const auto volumes = document.is_object() ? document.find("Volumes") : document.end();
  const bool listed = document.is_object() && volumes != document.end() &&
                      (volumes->is_array() || volumes->is_null());
  if (!listed) return plain_error("its /status holds no list of volumes: is it a volume server?");
  VolumeServerStatus status;
  status.version = text(document, "Version");
  const auto disks = document.find("DiskStatuses");
  if (disks != document.end() && disks->is_array()) status.disks = disks->size();
  for (const Json& entry : *volumes) take_entry(entry, status);
  return status;
}

std::string why_not_attested(const AttestedFacts& here, const VolumeServerStatus& status,
                             std::size_t directories) {
  const auto found = status.volumes.find(here.key.id);
  if (found == status.volumes.end()) return "the volume server does not list it";
  const ListedVolume& there = found->second;
  if (there.remote) return "the volume server reads it from a remote tier";
  if (there.collection != here.collection) {
    return "the volume server has it under collection \"" + there.collection + "\"";
  }
  if (there.revision != here.revision) {
    return "the volume server has compaction revision " + std::to_string(there.revision) +
           ", the file here is " + std::to_string(here.revision);
  }
  if (there.version != here.version) {
    return "the volume server has needle version " + std::to_string(there.version) +
           ", the file here is " + std::to_string(here.version);
  }
  // A copy left behind in another directory has the same revision; only the place tells.
  if (there.disk && status.disks == directories && *there.disk != here.directory_rank) {
    return "the volume server has it in directory " + std::to_string(*there.disk + 1) +
           " of its -dir, here it is in directory " + std::to_string(here.directory_rank + 1) +
           ": list dirs in that order";
  }
  return {};
}

}  // namespace kelp
