// How two kelpds come to trust each other, without a socket: bytes that arrived go in, bytes to
// send come out. Whoever has the socket bounds the time (kHandshakeLimit).
//
//   gateway                       target
//      Hello ──────────────────────►        who I am, my nonce
//      ◄────────────────────── Challenge    the version, my nonce
//      Proof ──────────────────────►        I know the key
//      ◄──────────────────────── Welcome    so do I; your credits
//
// Either may answer Refused instead, and that is the end. Nonces are fresh, so what was heard
// before proves nothing. It authenticates peers, not what they send later.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "dataplane/wire/frames.h"
#include "dataplane/wire/peer_keys.h"

namespace kelp::wire {

inline constexpr std::chrono::milliseconds kHandshakeLimit{2000};

/// What was agreed upon.
struct Agreement {
  std::uint16_t version = 0;
  std::uint16_t slots = 0;
  std::uint32_t max_slice_bytes = 0;
  std::uint16_t gateway_worker = 0;
  std::uint16_t target_worker = 0;
  std::uint16_t target_workers = 1;
  std::uint32_t key_id = 0;     ///< 0: nobody proved anything
  std::string node = {};        ///< the peer's name for itself; printable, untrusted. Target only
  std::uint16_t rdma_port = 0;  ///< see Welcome. Gateway only
  RdmaAddress rdma_address{};
};

/// Common to both sides. Not to be used after kDone but for what it agreed upon, and leftover().
class Handshake {
 public:
  enum class State : std::uint8_t { kUnderWay, kDone, kFailed };

  /// Bytes of the peer.
  State feed(std::span<const std::byte> bytes);
  /// Bytes for the peer that have not been taken yet; also after kDone and kFailed.
  std::vector<std::byte> take_output();
  State state() const noexcept { return state_; }
  /// After kFailed: a sentence.
  const std::string& failure() const noexcept { return failure_; }
  /// After kDone.
  const Agreement& agreement() const noexcept { return agreement_; }
  /// What came behind the last frame of the handshake.
  std::span<const std::byte> leftover() const noexcept { return received_; }

 protected:
  ~Handshake() = default;
  virtual void take(FrameKind kind, std::span<const std::byte> frame) = 0;

  template <class Frame>
  void send(Frame& frame, FrameKind kind) {
    seal(frame, kind);
    const auto bytes = std::as_bytes(std::span(&frame, 1));
    output_.insert(output_.end(), bytes.begin(), bytes.end());
  }
  /// Ends it, and tells the peer.
  void refuse(RefusalCode code, const std::string& why);
  void fail(std::string why);
  void done() noexcept { state_ = State::kDone; }

  Agreement agreement_;
  Hello hello_;
  Challenge challenge_;

 private:
  State state_ = State::kUnderWay;
  std::vector<std::byte> received_;
  std::vector<std::byte> output_;
  std::string failure_;
};

struct GatewayOffer {
  std::string node = {};
  std::uint16_t worker = 0;
  std::uint16_t target_worker = kAnyWorker;
  std::uint16_t slots = 64;
  Nonce nonce{};  ///< random, never used before: fresh_nonce()
};

class GatewayHandshake final : public Handshake {
 public:
  /// `keys` outlive it. Its first bytes are there at once.
  GatewayHandshake(const GatewayOffer& offer, const PeerKeys& keys);

 private:
  void take(FrameKind kind, std::span<const std::byte> frame) override;
  void take_challenge(const Challenge& challenge);
  void take_welcome(const Welcome& welcome);

  const PeerKeys& keys_;
  const std::uint16_t slots_wanted_;
};

struct TargetTerms {
  std::uint16_t workers = 1;
  std::uint16_t slots = 64;  ///< at most, for one connection
  std::uint32_t max_slice_bytes = kMostSliceBytes;
  std::uint16_t any_worker = 0;  ///< for a gateway that does not mind
  std::uint16_t rdma_port = 0;   ///< see Welcome
  RdmaAddress rdma_address{};
  Nonce nonce{};
};

class TargetHandshake final : public Handshake {
 public:
  /// `keys` outlive it. Empty ones: nobody is asked for a proof.
  TargetHandshake(const TargetTerms& terms, const PeerKeys& keys);

 private:
  void take(FrameKind kind, std::span<const std::byte> frame) override;
  void take_hello(const Hello& hello);
  void take_proof(const Proof& proof);

  const TargetTerms terms_;
  const PeerKeys& keys_;
  bool challenged_ = false;
};

/// From the system's random numbers.
Result<Nonce> fresh_nonce();

}  // namespace kelp::wire
