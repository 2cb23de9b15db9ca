#include "tools/device_views.h"

#include <nlohmann/json.hpp>

#include "tools/cells.h"
#include "tools/json_fields.h"
#include "tools/table.h"

namespace kelp {
namespace {

using nlohmann::json;

std::string mlx5_text(const json& device) {
  return field(device, "mlx5").is_object() ? "mlx5" : "not mlx5";
}

void add_port(const json& device, const json& port, Table& table) {
  const bool usable = field(port, "usable") == true;
  table.add({{field_text(device, "name")},
             {field_text(port, "number")},
             {usable ? "yes" : "no", usable ? Tone::kGood : Tone::kBad},
             {field_text(port, "state")},
             {field_text(port, "link_layer")},
             {field_text(port, "mtu_bytes")},
             {mlx5_text(device)},
             {usable ? "" : field_text(port, "obstacle")}});
}

void add_gids(const json& device, const json& port, Table& table) {
  const json& gids = field(port, "gids");
  if (!gids.is_array()) return;
  for (const json& gid : gids) {
    table.add({{field_text(device, "name")},
               {field_text(port, "number")},
               {field_text(gid, "index")},
               {field_text(gid, "address")},
               {field_text(gid, "type")},
               {field_text(gid, "interface")}});
  }
}

}  // namespace

std::string view_devices(const json& devices, bool colour) {
  const json& list = field(devices, "devices");
  const std::string error = field_text(devices, "error");
  if (!list.is_array() || list.empty()) {
    return error.empty() || error == "-" ? "no RDMA device\n"
                                         : "no RDMA device: " + printable(error) + "\n";
  }
  Table ports({{"DEVICE"},
               {"PORT", true},
               {"USABLE"},
               {"STATE"},
               {"LINK"},
               {"MTU", true},
               {"DRIVER"},
               {"WHY NOT"}});
  Table gids({{"DEVICE"}, {"PORT", true}, {"GID", true}, {"ADDRESS"}, {"TYPE"}, {"INTERFACE"}});
  for (const json& device : list) {
    const json& of_device = field(device, "ports");
    if (!of_device.is_array() || of_device.empty()) {
      ports.add({{field_text(device, "name")},
                 {"-"},
                 {"no", Tone::kBad},
                 {"-"},
                 {"-"},
                 {"-"},
                 {"-"},
                 {field_text(device, "error")}});
      continue;
    }
    for (const json& port : of_device) {
      add_port(device, port, ports);
      add_gids(device, port, gids);
    }
  }
  return ports.text(colour) + (gids.empty() ? "" : "\n" + gids.text(colour));
}

}  // namespace kelp
