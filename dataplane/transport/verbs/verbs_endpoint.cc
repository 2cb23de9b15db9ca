#include "dataplane/transport/verbs/verbs_endpoint.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <numeric>

#include "dataplane/transport/verbs/mlx5.h"

namespace kelp {
namespace {

/// Frames a gateway receives are answers, and the handshake's before.
constexpr std::uint32_t kGatewayFrameBytes = sizeof(wire::Refused);
static_assert(sizeof(wire::Answer) <= kGatewayFrameBytes &&
              sizeof(wire::Welcome) <= kGatewayFrameBytes);
constexpr std::uint32_t kTargetFrameBytes = wire::kMostFrameBytes;
constexpr std::uint32_t kWantedInlineBytes = 128;
/// Sends of which one is signalled, at least.
constexpr std::uint64_t kSignalEvery = 16;
/// A doorbell for so many sends is worth waiting for.
constexpr std::uint32_t kWorthADoorbell = 8;

/// Each request is answered once; the rest are Drain and Pong. A target hears requests and their
/// cancellations.
std::uint32_t receives_of(VerbsEndpoint::Role role, std::uint16_t slots) {
  return role == VerbsEndpoint::Role::kGateway ? slots + 4U : 2U * slots + 4U;
}

/// Of a target: a payload and its answer, for each slot; and as many again, whose completions have
/// not been signalled yet.
std::uint32_t sends_of(std::uint16_t slots) {
  return 2U * slots + 4U + static_cast<std::uint32_t>(kSignalEvery);
}

}  // namespace

VerbsEndpoint::VerbsEndpoint(std::shared_ptr<RdmaDomain> domain, const Options& options)
    : domain_(std::move(domain)),
      end_bell_(options.end_bell),
      receives_(receives_of(options.role, options.slots)),
      receive_bytes_(options.role == Role::kGateway ? kGatewayFrameBytes : kTargetFrameBytes),
      sends_(sends_of(options.slots)),
      memory_(std::size_t{receives_} * receive_bytes_ +
              std::size_t{2 * sends_} * wire::kMostFrameBytes),
      received_(memory_.bytes().first(std::size_t{receives_} * receive_bytes_)),
      frames_(memory_.bytes().subspan(received_.size())),
      // What is queued while all that may be posted is.
      outgoing_(2 * std::size_t{sends_}),
      landed_frames_(std::size_t{kBatch} * receive_bytes_) {}

VerbsEndpoint::~VerbsEndpoint() {
  if (unacknowledged_ != 0) ::ibv_ack_cq_events(completions_.get(), unacknowledged_);
}

Result<std::shared_ptr<VerbsEndpoint>> VerbsEndpoint::create(rdma_cm_id* id,
                                                             std::shared_ptr<RdmaDomain> domain,
                                                             const Options& options) {
  std::shared_ptr<VerbsEndpoint> made(new VerbsEndpoint(std::move(domain), options));
  if (auto done = made->set_up(id, options); !done) {
    if (id->qp != nullptr) ::rdma_destroy_qp(id);
    return tl::unexpected(done.error());
  }
  return made;
}

Result<void> VerbsEndpoint::set_up(rdma_cm_id* id, const Options& options) {
  auto region = RegisteredMemory::create(domain_, memory_.bytes(), Reach::kLocal);
  if (!region) return tl::unexpected(region.error());
  region_ = std::move(*region);
  channel_.reset(::ibv_create_comp_channel(domain_->device));
  if (channel_ == nullptr) return system_error("cannot make a completion channel");
  ::fcntl(channel_->fd, F_SETFL, ::fcntl(channel_->fd, F_GETFL) | O_NONBLOCK);
  completions_.reset(::ibv_create_cq(domain_->device, static_cast<int>(sends_ + receives_), nullptr,
                                     channel_.get(), 0));
  if (completions_ == nullptr) return system_error("cannot make a completion queue");
  if (auto made = make_queue_pair(id, options.mlx5); !made) return made;
  std::vector<std::uint32_t> all(receives_);
  std::iota(all.begin(), all.end(), 0U);
  if (!post_receives(all)) return plain_error("cannot post receives");
  arm();
  return {};
}

Result<void> VerbsEndpoint::make_queue_pair(rdma_cm_id* id, bool mlx5) {
  ibv_qp_init_attr wanted{};
  wanted.send_cq = wanted.recv_cq = completions_.get();
  wanted.qp_type = IBV_QPT_RC;
  wanted.cap.max_send_wr = sends_;
  wanted.cap.max_recv_wr = receives_;
  wanted.cap.max_send_sge = wanted.cap.max_recv_sge = 1;
  wanted.cap.max_inline_data = kWantedInlineBytes;
  const bool made = mlx5 && create_mlx5_queue_pair(id, domain_->pd, wanted);
  if (!made && ::rdma_create_qp(id, domain_->pd, &wanted) != 0) {
    // A device may have less than that for inline data.
    wanted.cap.max_inline_data = 0;
    if (::rdma_create_qp(id, domain_->pd, &wanted) != 0) {
      return system_error("cannot make a queue pair");
    }
  }
  queue_pair_ = id->qp;
  inline_bytes_ = wanted.cap.max_inline_data;
  return {};
}

bool VerbsEndpoint::post_receives(std::span<const std::uint32_t> which) noexcept {
  std::array<ibv_recv_wr, kBatch> requests;
  std::array<ibv_sge, kBatch> parts;
  while (!which.empty()) {
    const std::size_t count = std::min<std::size_t>(which.size(), kBatch);
    for (std::size_t i = 0; i < count; ++i) {
      std::byte* const room = received_.data() + std::size_t{which[i]} * receive_bytes_;
      parts[i] = {reinterpret_cast<std::uint64_t>(room), receive_bytes_, region_.local_key()};
      requests[i] = {};
      requests[i].wr_id = which[i];
      requests[i].sg_list = &parts[i];
      requests[i].num_sge = 1;
      requests[i].next = i + 1 < count ? &requests[i + 1] : nullptr;
    }
    ibv_recv_wr* refused = nullptr;
    if (::ibv_post_recv(queue_pair_, requests.data(), &refused) != 0) return false;
    which = which.subspan(count);
  }
  return true;
}

// ---- out

VerbsEndpoint::Outgoing* VerbsEndpoint::next_outgoing() noexcept {
  if (broken()) return nullptr;
  if (queued_ - completed_ == outgoing_.size()) {
    ask_end("more is to be sent than was agreed upon");
    return nullptr;
  }
  Outgoing& next = outgoing_[queued_ % outgoing_.size()];
  next = {};
  return &next;
}

bool VerbsEndpoint::post_frame(std::span<const std::byte> frame) noexcept {
  Outgoing* const next = next_outgoing();
  if (next == nullptr) return false;
  std::memcpy(frame_at(queued_++), frame.data(), frame.size());
  next->frame_bytes = static_cast<std::uint32_t>(frame.size());
  return true;
}

bool VerbsEndpoint::post_write(const Write& write) noexcept {
  Outgoing* const next = next_outgoing();
  if (next == nullptr) {
    write.arena->blocks.give_back(write.bytes.data());
    return false;
  }
  ++queued_;
  next->write = write;
  return true;
}

void VerbsEndpoint::flush(bool at_rest) noexcept {
  held_since_ = 0;
  while (post_batch(at_rest)) {
  }
}

bool VerbsEndpoint::flush_worthwhile(const HoldLimit& limit) noexcept {
  if (broken() || queued_ == flushed_) return false;
  if (queued() < kWorthADoorbell) {
    const Ticks now = ticks_now();
    if (held_since_ == 0) held_since_ = now;
    if (now - held_since_ < limit.ticks()) return true;
  }
  flush();
  return false;
}

/// False: nothing more can be posted now.
bool VerbsEndpoint::post_batch(bool at_rest) noexcept {
  const std::uint64_t room = sends_ - (flushed_ - completed_);
  const auto count =
      static_cast<std::size_t>(std::min({queued_ - flushed_, room, std::uint64_t{kBatch}}));
  if (count == 0 || broken()) return false;
  const bool some_signalled = last_signalled_ > completed_;
  std::array<ibv_send_wr, kBatch> requests;
  std::array<ibv_sge, kBatch> parts;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t sequence = flushed_ + i;
    const Outgoing& out = outgoing_[sequence % outgoing_.size()];
    ibv_send_wr& request = requests[i];
    request = {};
    request.wr_id = kSend | sequence;
    request.next = i + 1 < count ? &requests[i + 1] : nullptr;
    request.sg_list = &parts[i];
    request.num_sge = 1;
    if (out.frame_bytes != 0) {
      request.opcode = IBV_WR_SEND;
      parts[i] = {reinterpret_cast<std::uint64_t>(frame_at(sequence)), out.frame_bytes,
                  region_.local_key()};
      if (out.frame_bytes <= inline_bytes_) request.send_flags |= IBV_SEND_INLINE;
    } else {
      request.opcode = out.write.immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
      request.imm_data = ::htonl(out.write.value);
      request.wr.rdma = {out.write.remote_address, out.write.remote_key};
      parts[i] = {reinterpret_cast<std::uint64_t>(out.write.bytes.data()),
                  static_cast<std::uint32_t>(out.write.bytes.size()),
                  out.write.arena->region.local_key()};
    }
    const bool last = i + 1 == count;
    const bool due = sequence + 1 - last_signalled_ >= kSignalEvery || (last && at_rest);
    if (due || (last && !some_signalled && last_signalled_ <= flushed_)) {
      request.send_flags |= IBV_SEND_SIGNALED;
      last_signalled_ = sequence + 1;
      counters_->signalled.add();
    }
  }
  ibv_send_wr* refused = nullptr;
  const int error = ::ibv_post_send(queue_pair_, requests.data(), &refused);
  counters_->doorbells.add();
  counters_->posted.add(count);
  flushed_ += count;
  if (error != 0) {
    // What was queued may still run: only the queue pair's end is a fence.
    ask_end(error == EACCES ? "the adapter refuses what is posted: its file was opened by a "
                              "process of other privileges"
                            : "what is posted is refused");
  }
  return error == 0;
}

// ---- in

unsigned VerbsEndpoint::poll(User& user) noexcept {
  std::array<ibv_wc, kBatch> ended;
  const int count = ::ibv_poll_cq(completions_.get(), kBatch, ended.data());
  if (count <= 0) {
    if (count < 0) ask_end("its completions cannot be had");
    return 0;
  }
  // What has come is copied out and its place posted again, before anybody hears of it and lets the
  // other side send more: so it always finds a place.
  std::array<std::uint32_t, kBatch> places;
  std::size_t landed = 0;
  for (int i = 0; i < count; ++i) {
    const ibv_wc& wc = ended[static_cast<std::size_t>(i)];
    if ((wc.wr_id & kSend) != 0 || wc.status != IBV_WC_SUCCESS) {
      take_completion(wc);
      continue;
    }
    const bool immediate = wc.opcode == IBV_WC_RECV_RDMA_WITH_IMM;
    const bool has_value = (wc.wc_flags & IBV_WC_WITH_IMM) != 0;
    places[landed] = static_cast<std::uint32_t>(wc.wr_id);
    landed_[landed] = {immediate, has_value ? ::ntohl(wc.imm_data) : 0, wc.byte_len};
    if (!immediate) {
      std::memcpy(landed_frames_.data() + landed * receive_bytes_,
                  received_.data() + std::size_t{places[landed]} * receive_bytes_,
                  std::min(wc.byte_len, receive_bytes_));
    }
    ++landed;
  }
  if (landed != 0 && !broken() && !post_receives(std::span(places).first(landed))) {
    ask_end("receives cannot be posted");
  }
  for (std::size_t i = 0; i < landed; ++i) {
    const Landed& each = landed_[i];
    Arrival arrival{each.immediate, each.value, each.bytes, {}};
    if (!each.immediate) {
      arrival.frame = std::span(landed_frames_)
                          .subspan(i * receive_bytes_, std::min(each.bytes, receive_bytes_));
    }
    if (user.arrived(arrival)) continue;
    ask_end("the peer sent what is no frame, or could not come now");
    break;
  }
  return static_cast<unsigned>(count);
}

void VerbsEndpoint::take_completion(const ibv_wc& wc) noexcept {
  if (wc.status != IBV_WC_SUCCESS) {
    // Those behind the first are flushed, which says nothing.
    ask_end(::ibv_wc_status_str(wc.status));
    return;
  }
  const std::uint64_t end = (wc.wr_id & ~kSend) + 1;
  for (; completed_ < end; ++completed_) {
    const Outgoing& out = outgoing_[completed_ % outgoing_.size()];
    if (out.frame_bytes == 0) out.write.arena->blocks.give_back(out.write.bytes.data());
  }
}

void VerbsEndpoint::give_back_all() noexcept {
  for (; completed_ < queued_; ++completed_) {
    const Outgoing& out = outgoing_[completed_ % outgoing_.size()];
    if (out.frame_bytes == 0) out.write.arena->blocks.give_back(out.write.bytes.data());
  }
  flushed_ = queued_;
}

void VerbsEndpoint::arm() noexcept {
  ibv_cq* of = nullptr;
  void* context = nullptr;
  while (::ibv_get_cq_event(channel_.get(), &of, &context) == 0) ++unacknowledged_;
  if (::ibv_req_notify_cq(completions_.get(), 0) != 0) ask_end("it cannot be waited for");
}

void VerbsEndpoint::ask_end(const char* why) noexcept {
  if (why_ != nullptr) return;
  why_ = why;
  end_asked_.store(true, std::memory_order_release);
  if (end_bell_ >= 0) ::eventfd_write(end_bell_, 1);
}

}  // namespace kelp
