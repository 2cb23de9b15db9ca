// What a ConnectX can do beyond plain verbs, by its provider's own library. Nothing is assumed: the
// device is asked, and what it refuses is done the plain way.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

namespace kelp {

/// Gives `id` a queue pair, as rdma_create_qp() does, whose small frames arrive within their
/// completions: one access to memory less for each. False: it is no such device, or does not want
/// to, and nothing has happened. `wanted.cap` becomes what was granted.
bool create_mlx5_queue_pair(rdma_cm_id* id, ibv_pd* domain, ibv_qp_init_attr& wanted);

}  // namespace kelp
