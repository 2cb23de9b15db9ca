// All RDMA links of one worker, and the descriptor by which it is woken for any of them.
#pragma once

#include <memory>
#include <vector>

#include "dataplane/transport/verbs/verbs_gateway_link.h"
#include "dataplane/transport/verbs/verbs_target_link.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class VerbsTransport {
 public:
  static Result<std::unique_ptr<VerbsTransport>> create();

  /// The link is the transport's until remove(). Throws std::bad_alloc.
  VerbsGatewayLink& add_gateway(std::shared_ptr<VerbsEndpoint> endpoint,
                                const wire::Agreement& agreement, GatewayLink::User& user);
  VerbsTargetLink& add_target(std::shared_ptr<VerbsEndpoint> endpoint,
                              std::shared_ptr<RegisteredArena> arena,
                              const wire::Agreement& agreement, TargetLink::User& user);
  /// Only what is fenced.
  void remove(const GatewayLink& link);
  void remove(const TargetLink& link);

  /// Takes what has come and tells links; how much that was. Never waits, and makes no system call.
  unsigned poll() noexcept;
  /// For the worker's epoll set, edge-triggered.
  int fd() const noexcept { return epoll_.get(); }
  /// While armed, what comes makes an edge at fd(). Arm, poll, sleep.
  void arm(bool armed) noexcept;

 private:
  explicit VerbsTransport(UniqueFd epoll) : epoll_(std::move(epoll)) {}
  void watch(const VerbsEndpoint& endpoint) noexcept;

  const UniqueFd epoll_;  // of the links' channels
  std::vector<std::unique_ptr<VerbsGatewayLink>> gateways_;
  std::vector<std::unique_ptr<VerbsTargetLink>> targets_;
};

}  // namespace kelp
