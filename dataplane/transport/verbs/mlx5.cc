#include "dataplane/transport/verbs/mlx5.h"

#include <infiniband/mlx5dv.h>

namespace kelp {
namespace {

bool make_ready(rdma_cm_id* id, ibv_qp* queue_pair) {
  ibv_qp_attr attributes{};
  int mask = 0;
  attributes.qp_state = IBV_QPS_INIT;
  return ::rdma_init_qp_attr(id, &attributes, &mask) == 0 &&
         ::ibv_modify_qp(queue_pair, &attributes, mask) == 0;
}

}  // namespace

bool create_mlx5_queue_pair(rdma_cm_id* id, ibv_pd* domain, ibv_qp_init_attr& wanted) {
  if (!::mlx5dv_is_supported(id->verbs->device)) return false;
  ibv_qp_init_attr_ex plain{};
  plain.send_cq = wanted.send_cq;
  plain.recv_cq = wanted.recv_cq;
  plain.cap = wanted.cap;
  plain.qp_type = wanted.qp_type;
  plain.comp_mask = IBV_QP_INIT_ATTR_PD;
  plain.pd = domain;
  mlx5dv_qp_init_attr own{};
  own.comp_mask = MLX5DV_QP_INIT_ATTR_MASK_QP_CREATE_FLAGS;
  own.create_flags = MLX5DV_QP_CREATE_ALLOW_SCATTER_TO_CQE;
  ibv_qp* const made = ::mlx5dv_create_qp(id->verbs, &plain, &own);
  if (made == nullptr) return false;
  if (!make_ready(id, made)) {
    ::ibv_destroy_qp(made);
    return false;
  }
  wanted.cap = plain.cap;
  id->qp = made;
  id->pd = domain;
  return true;
}

}  // namespace kelp
