#include "dataplane/wire/handshake.h"

#include <sys/random.h>

#include <algorithm>

namespace kelp::wire {
namespace {

constexpr std::string_view kGatewayLabel = "kelp1-gw";
constexpr std::string_view kTargetLabel = "kelp1-tgt";

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}
template <class Frame>
std::span<const std::byte> bytes_of(const Frame& frame) {
  return std::as_bytes(std::span(&frame, 1));
}

std::optional<Mac> gateway_mac(const PeerKeys& keys, std::uint32_t id, const Hello& hello,
                               const Challenge& challenge) {
  return keys.sign(id, {bytes_of(kGatewayLabel), bytes_of(hello), bytes_of(challenge)});
}

std::optional<Mac> target_mac(const PeerKeys& keys, std::uint32_t id, const Hello& hello,
                              const Challenge& challenge, const Welcome& welcome) {
  // Its header holds a check over the MAC: what is signed begins behind it.
  const auto body =
      bytes_of(welcome).subspan(sizeof(FrameHeader), offsetof(Welcome, mac) - sizeof(FrameHeader));
  return keys.sign(id, {bytes_of(kTargetLabel), bytes_of(hello), bytes_of(challenge), body});
}

}  // namespace

Handshake::State Handshake::feed(std::span<const std::byte> bytes) {
  received_.insert(received_.end(), bytes.begin(), bytes.end());
  while (state_ == State::kUnderWay) {
    const Peeked next = peek_frame(received_);
    if (next.state == Peek::kMore) break;
    if (next.state == Peek::kBroken) {
      refuse(RefusalCode::kProtocol, "what came is no frame of Wire v1");
      break;
    }
    const std::span<const std::byte> frame(received_.data(), next.bytes);
    if (next.kind == FrameKind::kRefused) {
      const auto refused = copy_frame<Refused>(frame);
      fail("the peer refuses: " + printable(refused.message));
    } else {
      take(next.kind, frame);
    }
    received_.erase(received_.begin(), received_.begin() + next.bytes);
  }
  return state_;
}

std::vector<std::byte> Handshake::take_output() {
  return std::exchange(output_, {});
}

void Handshake::refuse(RefusalCode code, const std::string& why) {
  Refused refused;
  refused.code = code;
  std::copy_n(why.begin(), std::min(why.size(), refused.message.size() - 1),
              refused.message.begin());
  send(refused, FrameKind::kRefused);
  fail(why);
}

void Handshake::fail(std::string why) {
  state_ = State::kFailed;
  failure_ = std::move(why);
}

GatewayHandshake::GatewayHandshake(const GatewayOffer& offer, const PeerKeys& keys)
    : keys_(keys), slots_wanted_(offer.slots) {
  hello_.gateway_worker = offer.worker;
  hello_.target_worker = offer.target_worker;
  hello_.slots = offer.slots;
  hello_.key_id = keys.first_id();
  hello_.nonce = offer.nonce;
  std::copy_n(offer.node.begin(), std::min(offer.node.size(), hello_.node.size() - 1),
              hello_.node.begin());
  send(hello_, FrameKind::kHello);
}

void GatewayHandshake::take(FrameKind kind, std::span<const std::byte> frame) {
  const bool challenged = challenge_.version != 0;
  if (kind == FrameKind::kChallenge && !challenged)
    return take_challenge(copy_frame<Challenge>(frame));
  if (kind == FrameKind::kWelcome && challenged) return take_welcome(copy_frame<Welcome>(frame));
  refuse(RefusalCode::kProtocol, "the target answers with a frame that cannot come now");
}

void GatewayHandshake::take_challenge(const Challenge& challenge) {
  if (challenge.version < kOldestVersion || challenge.version > kNewestVersion) {
    return refuse(RefusalCode::kVersion,
                  "the target wants to speak version " + std::to_string(challenge.version));
  }
  challenge_ = challenge;
  Proof proof;
  if (hello_.key_id != 0) {
    const auto mac = gateway_mac(keys_, hello_.key_id, hello_, challenge_);
    if (!mac) return refuse(RefusalCode::kKey, "the gateway cannot sign with its key");
    proof.mac = *mac;
  }
  send(proof, FrameKind::kProof);
}

void GatewayHandshake::take_welcome(const Welcome& welcome) {
  if (hello_.key_id != 0) {
    const auto mac = target_mac(keys_, hello_.key_id, hello_, challenge_, welcome);
    if (!mac || !same_mac(*mac, welcome.mac)) {
      return refuse(RefusalCode::kKey, "the target does not know the key");
    }
  }
  const bool sound = welcome.slots > 0 && welcome.slots <= slots_wanted_ && welcome.workers > 0 &&
                     welcome.worker < welcome.workers && welcome.max_slice_bytes > 0 &&
                     welcome.max_slice_bytes <= kMostSliceBytes;
  if (!sound) return refuse(RefusalCode::kProtocol, "the target's terms make no sense");
  agreement_ = {challenge_.version, welcome.slots,   welcome.max_slice_bytes, hello_.gateway_worker,
                welcome.worker,     welcome.workers, hello_.key_id,           {}};
  agreement_.rdma_port = welcome.rdma_port;
  agreement_.rdma_address = welcome.rdma_address;
  done();
}

TargetHandshake::TargetHandshake(const TargetTerms& terms, const PeerKeys& keys)
    : terms_(terms), keys_(keys) {}

void TargetHandshake::take(FrameKind kind, std::span<const std::byte> frame) {
  if (kind == FrameKind::kHello && !challenged_) return take_hello(copy_frame<Hello>(frame));
  if (kind == FrameKind::kProof && challenged_) return take_proof(copy_frame<Proof>(frame));
  refuse(RefusalCode::kProtocol, "the gateway sends a frame that cannot come now");
}

void TargetHandshake::take_hello(const Hello& hello) {
  if (hello.magic != kMagic || hello.role != Role::kGateway || hello.reserved != 0) {
    return refuse(RefusalCode::kProtocol, "this is not the greeting of a gateway");
  }
  if (hello.min_version > kNewestVersion || hello.max_version < kOldestVersion) {
    return refuse(RefusalCode::kVersion, "this kelpd speaks versions " +
                                             std::to_string(kOldestVersion) + " to " +
                                             std::to_string(kNewestVersion) + ", the gateway " +
                                             std::to_string(hello.min_version) + " to " +
                                             std::to_string(hello.max_version));
  }
  if (hello.slots == 0 ||
      (hello.target_worker != kAnyWorker && hello.target_worker >= terms_.workers)) {
    return refuse(RefusalCode::kProtocol,
                  "the gateway asks for no slots, or for a worker that is not there");
  }
  hello_ = hello;
  challenge_.version = std::min(hello.max_version, kNewestVersion);
  challenge_.nonce = terms_.nonce;
  challenged_ = true;
  send(challenge_, FrameKind::kChallenge);
}

void TargetHandshake::take_proof(const Proof& proof) {
  if (!keys_.empty()) {
    const auto mac = gateway_mac(keys_, hello_.key_id, hello_, challenge_);
    // Which of both it is would tell a stranger what keys there are.
    if (!mac || !same_mac(*mac, proof.mac)) {
      return refuse(RefusalCode::kKey, "the gateway does not know a key of this target");
    }
  }
  Welcome welcome;
  welcome.slots = std::min({hello_.slots, terms_.slots, kMostSlots});
  welcome.workers = terms_.workers;
  welcome.worker = hello_.target_worker == kAnyWorker ? terms_.any_worker : hello_.target_worker;
  welcome.max_slice_bytes = terms_.max_slice_bytes;
  welcome.rdma_port = terms_.rdma_port;
  welcome.rdma_address = terms_.rdma_address;
  if (!keys_.empty()) {
    const auto mac = target_mac(keys_, hello_.key_id, hello_, challenge_, welcome);
    if (!mac) return refuse(RefusalCode::kKey, "the target cannot sign with its key");
    welcome.mac = *mac;
  }
  send(welcome, FrameKind::kWelcome);
  agreement_ = {challenge_.version,
                welcome.slots,
                welcome.max_slice_bytes,
                hello_.gateway_worker,
                welcome.worker,
                welcome.workers,
                keys_.empty() ? 0 : hello_.key_id,
                printable(hello_.node)};
  done();
}

Result<Nonce> fresh_nonce() {
  Nonce nonce;
  if (::getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) {
    return system_error("cannot get random numbers");
  }
  return nonce;
}

}  // namespace kelp::wire
