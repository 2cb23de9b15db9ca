#include "control/peers/rdma_cm.h"

#include <array>
#include <cstring>
#include <system_error>

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
  return "its address is not one of RoCE v2";
}

std::uint32_t rdma_mtu_bytes(rdma_cm_id& id) {
  ibv_qp_attr attributes{};
  ibv_qp_init_attr init{};
  if (::ibv_query_qp(id.qp, &attributes, IBV_QP_PATH_MTU, &init) != 0) return 0;
  return 128U << attributes.path_mtu;
}

}  // namespace kelp
