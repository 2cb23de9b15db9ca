// What the connection manager made of an RDMA connection: by which port and address it goes.
#pragma once

#include <cstdint>
#include <string>

namespace kelp {

/// Read back from the queue pair, so it is what packets carry, not what was asked for.
struct RdmaPath {
  std::string device;  ///< "mlx5_0"
  std::uint32_t port = 1;
  bool ethernet = false;
  std::string gid;              ///< our address; as RdmaGid has it. Empty: unknown
  std::string gid_type;         ///< "RoCE v2", "RoCE v1", "InfiniBand". Empty: unknown
  std::uint32_t mtu_bytes = 0;  ///< as both ends agreed upon it; 0: unknown
};

/// Why such a connection is not taken: what travels on Ethernet by anything but RoCE v2 does not
/// leave its segment. "": nothing. At most 85 bytes, to fit a refusal.
std::string rdma_path_obstacle(const RdmaPath& path);

}  // namespace kelp
