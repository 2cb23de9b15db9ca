#include "control/peers/rdma_path.h"

#include <doctest/doctest.h>

#include "dataplane/wire/frames.h"

using kelp::rdma_path_obstacle;
using kelp::RdmaPath;

namespace {

RdmaPath path_of(bool ethernet, const char* gid_type) {
  RdmaPath path;
  path.ethernet = ethernet;
  path.gid_type = gid_type;
  return path;
}

}  // namespace

TEST_CASE("on Ethernet a connection that does not go by RoCE v2 is refused, and the remedy told") {
  const std::string obstacle = rdma_path_obstacle(path_of(true, "RoCE v1"));
  CHECK(obstacle.find("not one of RoCE v2") != std::string::npos);
  CHECK(obstacle.find("rdma.source") != std::string::npos);
  CHECK(obstacle.size() < kelp::wire::RdmaRefusal{}.message.size());  // told to the other end whole
  CHECK(rdma_path_obstacle(path_of(true, "RoCE v2")).empty());
}

TEST_CASE("InfiniBand has addresses of its own, and what cannot be read back is no obstacle") {
  CHECK(rdma_path_obstacle(path_of(false, "InfiniBand")).empty());
  CHECK(rdma_path_obstacle(path_of(true, "")).empty());
}
