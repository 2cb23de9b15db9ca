// The RDMA devices of this host, each port and whether Kelp could use it: what /devices shows.
//
// Opens each device to ask, and closes it again. Any thread; may take milliseconds a device. After
// privileges are dropped: a device that was opened before answers EACCES to every post.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

struct ibv_gid_entry;

namespace kelp {

struct RdmaGid {
  std::uint32_t index = 0;
  std::string address;    ///< as an IPv6 address; of an IPv4 one: "::ffff:10.9.0.1"
  std::string type;       ///< "RoCE v2", "RoCE v1", "InfiniBand"
  std::string interface;  ///< of the network; empty: none, or it has gone
};

struct RdmaPort {
  std::uint32_t number = 1;
  std::string state;                ///< "active", "down", ...
  std::string link_layer;           ///< "Ethernet", "InfiniBand"
  std::uint32_t mtu_bytes = 0;      ///< active
  std::uint32_t max_mtu_bytes = 0;  ///< of the device
  std::uint64_t max_message_bytes = 0;
  std::vector<RdmaGid> gids;
  std::string obstacle;  ///< why it is of no use; empty: it is of use
  /// Of the driver, since the device is there: retransmissions, RNR and what else it counts.
  std::map<std::string, std::uint64_t> counters = {};
};

/// An entry of a port's table in words.
RdmaGid rdma_gid(const ibv_gid_entry& entry);

/// What a ConnectX says of itself, by mlx5dv.
struct Mlx5Facts {
  std::uint32_t version = 0;
  std::uint64_t flags = 0;  ///< MLX5DV_CONTEXT_FLAGS_*
};

struct RdmaDevice {
  std::string name;
  std::string error;  ///< why it could not be asked; then the rest says nothing
  std::string firmware;
  std::uint32_t vendor_id = 0;
  std::uint32_t vendor_part_id = 0;
  std::uint64_t max_region_bytes = 0;
  std::uint32_t max_queue_pairs = 0;
  std::uint32_t max_queue_entries = 0;
  std::uint32_t max_completions = 0;  ///< of one completion queue
  std::uint32_t max_segments = 0;     ///< of one work request
  std::optional<Mlx5Facts> mlx5;      ///< none: it is another one
  std::vector<RdmaPort> ports;
};

struct RdmaDevices {
  std::vector<RdmaDevice> devices;
  std::string error;  ///< why they could not be listed
};

RdmaDevices list_rdma_devices();

/// Of one port, what RdmaPort::counters are.
struct RdmaPortCounters {
  std::string device;
  std::uint32_t port = 1;
  std::map<std::string, std::uint64_t> counters;
};

/// Of all ports that the kernel has; opens no device.
std::vector<RdmaPortCounters> rdma_port_counters();

}  // namespace kelp
