// A gateway's end of an RDMA connection: see link.h. Answers are written into the buffers by the
// target's adapter; what they say comes with the write, or in a frame behind it.
#pragma once

#include <memory>
#include <vector>

#include "dataplane/transport/link.h"
#include "dataplane/transport/verbs/verbs_endpoint.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/wire/request_slots.h"

namespace kelp {

class VerbsGatewayLink final : public GatewayLink, private VerbsEndpoint::User {
 public:
  VerbsGatewayLink(std::shared_ptr<VerbsEndpoint> endpoint, const wire::Agreement& agreement,
                   GatewayLink::User& user);

  std::optional<std::uint16_t> ask(std::uint32_t owner, const LinkRead& read) override;
  bool let_go(std::uint16_t slot) override;
  bool flush() override;
  void fence() override { endpoint_->ask_end("it was ended here"); }
  bool fenced() const override { return told_; }
  bool ending() const override { return draining_ || endpoint_->broken(); }
  std::uint16_t in_flight() const override { return slots_.in_flight(); }
  std::uint32_t max_slice_bytes() const override { return max_slice_bytes_; }
  kelp_path path() const override { return KELP_PATH_VERBS; }

  /// Takes what has come; how much that was.
  unsigned poll() noexcept;
  VerbsEndpoint& endpoint() noexcept { return *endpoint_; }

 private:
  struct Request {
    std::uint32_t length_bytes = 0;
    std::uint8_t generation = 0;
    Ticks asked = 0;
  };

  bool arrived(const VerbsEndpoint::Arrival& arrival) override;
  bool take_answer(const wire::Answer& answer);
  void tell_if_gone();

  const std::shared_ptr<VerbsEndpoint> endpoint_;
  GatewayLink::User& user_;
  wire::GatewaySlots slots_;
  std::vector<Request> requests_;  // by slot
  const std::uint32_t max_slice_bytes_;
  HoldLimit hold_limit_;
  bool draining_ = false;
  bool told_ = false;
};

}  // namespace kelp
