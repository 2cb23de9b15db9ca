#include "control/devices_json.h"

#include "control/report_json.h"

namespace kelp {
namespace {

ReportJson gids_json(const std::vector<RdmaGid>& gids) {
  ReportJson list = ReportJson::array();
  for (const RdmaGid& gid : gids) {
    list.push_back({{"index", gid.index},
                    {"address", gid.address},
                    {"type", gid.type},
                    {"interface", gid.interface}});
  }
  return list;
}

ReportJson port_json(const RdmaPort& port) {
  return {{"number", port.number},
          {"usable", port.obstacle.empty()},
          {"obstacle", port.obstacle},
          {"state", port.state},
          {"link_layer", port.link_layer},
          {"mtu_bytes", port.mtu_bytes},
          {"max_mtu_bytes", port.max_mtu_bytes},
          {"max_message_bytes", port.max_message_bytes},
          {"gids", gids_json(port.gids)},
          {"counters", port.counters}};
}

ReportJson device_json(const RdmaDevice& device) {
  ReportJson ports = ReportJson::array();
  for (const RdmaPort& port : device.ports) ports.push_back(port_json(port));
  ReportJson mlx5;
  if (device.mlx5) mlx5 = {{"version", device.mlx5->version}, {"flags", device.mlx5->flags}};
  return {{"name", device.name},
          {"error", device.error},
          {"firmware", device.firmware},
          {"vendor_id", device.vendor_id},
          {"vendor_part_id", device.vendor_part_id},
          {"mlx5", mlx5},
          {"limits",
           {{"region_bytes", device.max_region_bytes},
            {"queue_pairs", device.max_queue_pairs},
            {"queue_entries", device.max_queue_entries},
            {"completions", device.max_completions},
            {"segments", device.max_segments}}},
          {"ports", ports}};
}

}  // namespace

std::string devices_json(const RdmaDevices& found, const LockedMemory& locked,
                         std::optional<std::uint64_t> lock_limit_bytes) {
  ReportJson list = ReportJson::array();
  std::size_t usable = 0;
  for (const RdmaDevice& device : found.devices) {
    list.push_back(device_json(device));
    for (const RdmaPort& port : device.ports) usable += port.obstacle.empty();
  }
  return report_text(
      {{"devices", list},
       {"error", found.error},
       {"usable", usable},
       {"locked_memory",
        {{"limit_bytes", lock_limit_bytes ? ReportJson(*lock_limit_bytes) : ReportJson()},
         {"pinned_bytes", locked.pinned_bytes},
         {"program_bytes", locked.program_bytes}}}});
}

}  // namespace kelp
