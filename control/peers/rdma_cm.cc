#include "control/peers/rdma_cm.h"

#include <array>
#include <cstring>
#include <system_error>

#include "dataplane/transport/verbs/rdma_devices.h"
#include "dataplane/wire/frames.h"

namespace kelp {

std::string rdma_reason(const rdma_cm_event& event) {
  constexpr int kInvalidService = 8;
  constexpr int kStale = 10;
  constexpr int kConsumerDefined = 28;
  if (event.event != RDMA_CM_EVENT_REJECTED) {
    return std::string(::rdma_event_str(event.event)) +
           (event.status < 0 ? ": " + std::generic_category().message(-event.status) : "");
  }
  if (event.status == kInvalidService) return "nobody listens there";
  if (event.status == kStale) {
    return "the peer still has a connection of before; it is over in a few seconds";
  }
  wire::RdmaRefusal refusal;
  if (event.status == kConsumerDefined && event.param.conn.private_data != nullptr &&
      event.param.conn.private_data_len >= sizeof refusal) {
    std::memcpy(&refusal, event.param.conn.private_data, sizeof refusal);
    if (refusal.magic == wire::kRdmaMagic) {
      return "the peer refuses: " + wire::printable(refusal.message);
    }
  }
  return "the peer refuses (reason " + std::to_string(event.status) + ")";
}

std::string rdma_obstacle(const rdma_cm_id& id) {
  ibv_port_attr port{};
  if (::ibv_query_port(id.verbs, id.port_num, &port) != 0) return "its port cannot be asked";
  if (port.link_layer != IBV_LINK_LAYER_ETHERNET) return "";
  std::array<ibv_gid_entry, 256> entries;
  const ssize_t count = ::ibv_query_gid_table(id.verbs, entries.data(), entries.size(), 0);
  const ibv_gid& ours = id.route.addr.addr.ibaddr.sgid;
  for (ssize_t i = 0; i < count; ++i) {
    const ibv_gid_entry& entry = entries[static_cast<std::size_t>(i)];
    if (entry.port_num == id.port_num && entry.gid_type == IBV_GID_TYPE_ROCE_V2 &&
        std::memcmp(&entry.gid, &ours, sizeof ours) == 0) {
      return "";
    }
  }
  RdmaPath other;
  other.ethernet = true;
  other.gid_type = "RoCE v1";
  return rdma_path_obstacle(other);
}

RdmaPath rdma_path(const rdma_cm_id& id) {
  RdmaPath path;
  path.device = ::ibv_get_device_name(id.verbs->device);
  path.port = id.port_num;
  ibv_port_attr port{};
  path.ethernet = ::ibv_query_port(id.verbs, id.port_num, &port) == 0 &&
                  port.link_layer == IBV_LINK_LAYER_ETHERNET;
  ibv_qp_attr attributes{};
  ibv_qp_init_attr init{};
  if (::ibv_query_qp(id.qp, &attributes, IBV_QP_PATH_MTU | IBV_QP_AV, &init) != 0) return path;
  path.mtu_bytes = 128U << attributes.path_mtu;
  // An address may be there twice, by RoCE v1 and v2: which one it is, the queue pair knows.
  ibv_gid_entry entry{};
  if (attributes.ah_attr.is_global == 0 ||
      ::ibv_query_gid_ex(id.verbs, id.port_num, attributes.ah_attr.grh.sgid_index, &entry, 0) !=
          0) {
    return path;
  }
  RdmaGid gid = rdma_gid(entry);
  path.gid = std::move(gid.address);
  path.gid_type = std::move(gid.type);
  return path;
}

}  // namespace kelp
