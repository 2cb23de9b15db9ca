// A target's end of an RDMA connection: see link.h. Rooms are blocks of the worker's arena, and
// written from there into the gateway's memory, never outside what the request named.
#pragma once

#include <memory>
#include <vector>

#include "dataplane/transport/link.h"
#include "dataplane/transport/verbs/verbs_endpoint.h"
#include "dataplane/wire/handshake.h"
#include "dataplane/wire/request_slots.h"

namespace kelp {

class VerbsTargetLink final : public TargetLink, private VerbsEndpoint::User {
 public:
  VerbsTargetLink(std::shared_ptr<VerbsEndpoint> endpoint, std::shared_ptr<RegisteredArena> arena,
                  const wire::Agreement& agreement, TargetLink::User& user);

  std::span<std::byte> room(std::uint16_t slot) override { return requests_[slot].room; }
  bool sends_files() const override { return false; }
  void answer(wire::Answer answer, const AnswerBytes& bytes) override;
  bool answer_at_once(std::uint16_t slot) override;
  void give_back(std::span<std::byte> room) override;
  bool flush() override;
  void drain() override;
  void fence() override { endpoint_->ask_end("it was ended here"); }
  bool fenced() const override { return endpoint_->gone(); }
  bool broken() const override { return endpoint_->broken(); }
  std::uint16_t in_flight() const override {
    return static_cast<std::uint16_t>(slots_.in_flight() + rooms_out_);
  }

  /// Takes what has come; how much that was.
  unsigned poll() noexcept;
  VerbsEndpoint& endpoint() noexcept { return *endpoint_; }

 private:
  struct Request {
    std::uint8_t generation = 0;
    std::uint32_t remote_key = 0;
    std::uint64_t remote_address = 0;
    std::span<std::byte> room;
    Ticks heard = 0;
  };

  bool arrived(const VerbsEndpoint::Arrival& arrival) override;
  bool begin(std::span<const std::byte> frame);
  void post_answer(wire::Answer answer);

  const std::shared_ptr<VerbsEndpoint> endpoint_;
  const std::shared_ptr<RegisteredArena> arena_;
  TargetLink::User& user_;
  wire::TargetSlots slots_;
  std::vector<Request> requests_;  // by slot
  const std::uint16_t credits_;
  const std::uint32_t max_slice_bytes_;
  std::uint16_t rooms_out_ = 0;  // of requests that were answered at once; at most credits_
  HoldLimit hold_limit_;
};

}  // namespace kelp
