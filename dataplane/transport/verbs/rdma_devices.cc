#include "dataplane/transport/verbs/rdma_devices.h"

#include <arpa/inet.h>
#include <infiniband/mlx5dv.h>
#include <infiniband/verbs.h>
#include <net/if.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <memory>
#include <system_error>

namespace kelp {
namespace {

constexpr std::size_t kMostGids = 256;

struct ListFree {
  void operator()(ibv_device** list) const noexcept { ::ibv_free_device_list(list); }
};
struct ContextClose {
  void operator()(ibv_context* context) const noexcept { ::ibv_close_device(context); }
};
using Context = std::unique_ptr<ibv_context, ContextClose>;

std::string error_text(int error) {
  return std::generic_category().message(error);
}

std::uint32_t bytes_of(ibv_mtu mtu) {
  return mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096 ? 128U << mtu : 0;
}

std::string state_name(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "initialising";
    case IBV_PORT_ARMED:
      return "armed";
    case IBV_PORT_ACTIVE:
      return "active";
    case IBV_PORT_ACTIVE_DEFER:
      return "active, deferred";
    default:
      return "unknown";
  }
}

std::string type_name(std::uint32_t type) {
  switch (type) {
    case IBV_GID_TYPE_ROCE_V2:
      return "RoCE v2";
    case IBV_GID_TYPE_ROCE_V1:
      return "RoCE v1";
    default:
      return "InfiniBand";
  }
}

std::vector<RdmaGid> gids_of(ibv_context* context, std::uint32_t port) {
  std::vector<ibv_gid_entry> entries(kMostGids);
  const ssize_t count = ::ibv_query_gid_table(context, entries.data(), entries.size(), 0);
  std::vector<RdmaGid> gids;
  for (ssize_t i = 0; i < count; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<std::size_t>(i)];
    if (entry.port_num != port) continue;
    gids.push_back(rdma_gid(entry));
  }
  return gids;
}

/// Routed RoCE only: what is not RoCE v2 on Ethernet does not leave its segment.
std::string obstacle_of(const RdmaPort& port, bool active) {
  if (!active) return "the port is " + port.state;
  if (port.link_layer != "Ethernet") return port.gids.empty() ? "it has no address" : "";
  const bool routed =
      std::ranges::any_of(port.gids, [](const RdmaGid& gid) { return gid.type == "RoCE v2"; });
  return routed ? "" : "it has no address by RoCE v2";
}

constexpr const char* kDevices = "/sys/class/infiniband";

std::map<std::string, std::uint64_t> counters_of(const std::string& device, std::uint32_t port) {
  std::map<std::string, std::uint64_t> counters;
  std::error_code none;
  const auto all =
      std::filesystem::path(kDevices) / device / "ports" / std::to_string(port) / "hw_counters";
  for (const auto& entry : std::filesystem::directory_iterator(all, none)) {
    std::uint64_t value = 0;
    if (std::ifstream(entry.path()) >> value) counters[entry.path().filename()] = value;
  }
  return counters;
}

RdmaPort port_of(ibv_context* context, std::uint8_t number) {
  RdmaPort port;
  port.number = number;
  ibv_port_attr attributes{};
  if (const int error = ::ibv_query_port(context, number, &attributes); error != 0) {
    port.obstacle = "it cannot be asked: " + error_text(error);
    return port;
  }
  port.state = state_name(attributes.state);
  port.link_layer = attributes.link_layer == IBV_LINK_LAYER_ETHERNET ? "Ethernet" : "InfiniBand";
  port.mtu_bytes = bytes_of(attributes.active_mtu);
  port.max_mtu_bytes = bytes_of(attributes.max_mtu);
  port.max_message_bytes = attributes.max_msg_sz;
  port.gids = gids_of(context, number);
  port.counters = counters_of(::ibv_get_device_name(context->device), number);
  port.obstacle = obstacle_of(port, attributes.state == IBV_PORT_ACTIVE);
  return port;
}

std::optional<Mlx5Facts> mlx5_of(ibv_device* device, ibv_context* context) {
  if (!::mlx5dv_is_supported(device)) return std::nullopt;
  mlx5dv_context facts{};
  if (::mlx5dv_query_device(context, &facts) != 0) return std::nullopt;
  return Mlx5Facts{facts.version, facts.flags};
}

RdmaDevice device_of(ibv_device* listed) {
  RdmaDevice device;
  device.name = ::ibv_get_device_name(listed);
  const Context context(::ibv_open_device(listed));
  if (context == nullptr) {
    device.error = "cannot open it: " + error_text(errno);
    return device;
  }
  ibv_device_attr attributes{};
  if (const int error = ::ibv_query_device(context.get(), &attributes); error != 0) {
    device.error = "cannot ask it: " + error_text(error);
    return device;
  }
  device.firmware = attributes.fw_ver;
  device.vendor_id = attributes.vendor_id;
  device.vendor_part_id = attributes.vendor_part_id;
  device.max_region_bytes = attributes.max_mr_size;
  device.max_queue_pairs = static_cast<std::uint32_t>(attributes.max_qp);
  device.max_queue_entries = static_cast<std::uint32_t>(attributes.max_qp_wr);
  device.max_completions = static_cast<std::uint32_t>(attributes.max_cqe);
  device.max_segments = static_cast<std::uint32_t>(attributes.max_sge);
  device.mlx5 = mlx5_of(listed, context.get());
  for (std::uint8_t number = 1; number <= attributes.phys_port_cnt; ++number) {
    device.ports.push_back(port_of(context.get(), number));
  }
  return device;
}

/// Libibverbs passes over those whose files in /dev are not to be seen: a service with
/// PrivateDevices=, a container.
void add_unreachable(std::vector<RdmaDevice>& devices) {
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(kDevices, none)) {
    const std::string name = entry.path().filename();
    if (std::ranges::find(devices, name, &RdmaDevice::name) != devices.end()) continue;
    devices.emplace_back().name = name;
    devices.back().error =
        "the kernel has it, but its files in /dev/infiniband are out of this process's reach: "
        "PrivateDevices= of the service, or a container without them";
  }
}

}  // namespace

RdmaGid rdma_gid(const ibv_gid_entry& entry) {
  std::array<char, INET6_ADDRSTRLEN> address{};
  ::inet_ntop(AF_INET6, entry.gid.raw, address.data(), address.size());
  std::array<char, IF_NAMESIZE> interface {};
  ::if_indextoname(entry.ndev_ifindex, interface.data());
  return {entry.gid_index, address.data(), type_name(entry.gid_type), interface.data()};
}

RdmaDevices list_rdma_devices() {
  RdmaDevices found;
  int count = 0;
  const std::unique_ptr<ibv_device*, ListFree> list(::ibv_get_device_list(&count));
  if (list == nullptr) {
    // Kernels without the modules have none, which is no error.
    if (errno != ENOSYS) found.error = error_text(errno);
    return found;
  }
  for (int i = 0; i < count; ++i) found.devices.push_back(device_of(list.get()[i]));
  add_unreachable(found.devices);
  return found;
}

std::vector<RdmaPortCounters> rdma_port_counters() {
  std::vector<RdmaPortCounters> found;
  std::error_code none;
  for (const auto& device : std::filesystem::directory_iterator(kDevices, none)) {
    const std::string name = device.path().filename();
    for (std::uint32_t port = 1;
         std::filesystem::exists(device.path() / "ports" / std::to_string(port), none); ++port) {
      found.push_back({name, port, counters_of(name, port)});
    }
  }
  return found;
}

}  // namespace kelp
