#include "control/peers/rdma_path.h"

namespace kelp {

std::string rdma_path_obstacle(const RdmaPath& path) {
  if (!path.ethernet || path.gid_type.empty() || path.gid_type == "RoCE v2") return "";
  return "its address is not one of RoCE v2: cma_roce_mode, rdma.source or rdma.listen";
}

}  // namespace kelp
