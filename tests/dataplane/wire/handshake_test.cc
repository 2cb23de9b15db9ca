#include "dataplane/wire/handshake.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace kelp::wire;
using State = Handshake::State;

namespace {

PeerKeys keys(const std::string& text) {
  return PeerKeys::parse(text).value();
}
const std::string kFirst = "1 00112233445566778899aabbccddeeff\n";
const std::string kSecond = "2 ffeeddccbbaa99887766554433221100\n";

Nonce nonce(std::uint8_t first) {
  Nonce made{};
  made[0] = first;
  return made;
}

struct Pair {
  explicit Pair(PeerKeys of_gateway = {}, PeerKeys of_target = {}, GatewayOffer offer = {},
                TargetTerms terms = {})
      : gateway_keys(std::move(of_gateway)),
        target_keys(std::move(of_target)),
        gateway(offer, gateway_keys),
        target(terms, target_keys) {}

  /// Carries bytes to and fro, `piece` at a time, until nobody says anything more.
  void talk(std::size_t piece = SIZE_MAX) {
    for (bool said = true; said;) {
      said = false;
      for (const bool from_gateway : {true, false}) {
        Handshake& from = from_gateway ? static_cast<Handshake&>(gateway) : target;
        Handshake& to = from_gateway ? static_cast<Handshake&>(target) : gateway;
        std::vector<std::byte> bytes = from.take_output();
        (from_gateway ? sent_by_gateway : sent_by_target).push_back(bytes);
        said = said || !bytes.empty();
        for (std::size_t at = 0; at < bytes.size(); at += piece) {
          to.feed(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
        }
      }
    }
  }

  PeerKeys gateway_keys, target_keys;
  GatewayHandshake gateway;
  TargetHandshake target;
  std::vector<std::vector<std::byte>> sent_by_gateway, sent_by_target;
};

std::vector<std::byte> joined(const std::vector<std::vector<std::byte>>& parts) {
  std::vector<std::byte> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

}  // namespace

TEST_CASE("both sides agree, in whatever pieces the bytes come, with a key and without") {
  for (const bool with_key : {false, true}) {
    for (const std::size_t piece : {std::size_t{1}, std::size_t{7}, std::size_t{1000}}) {
      const std::string text = with_key ? kFirst : "";
      Pair pair(
          keys(text), keys(text),
          {.node = "reader 1", .worker = 2, .target_worker = 3, .slots = 100, .nonce = nonce(1)},
          {.workers = 4, .slots = 64, .max_slice_bytes = 65536, .nonce = nonce(2)});
      pair.talk(piece);
      REQUIRE(pair.gateway.state() == State::kDone);
      REQUIRE(pair.target.state() == State::kDone);
      for (const Agreement* agreed : {&pair.gateway.agreement(), &pair.target.agreement()}) {
        CHECK(agreed->version == 1);
        CHECK(agreed->slots == 64);
        CHECK(agreed->max_slice_bytes == 65536);
        CHECK(agreed->gateway_worker == 2);
        CHECK(agreed->target_worker == 3);
        CHECK(agreed->target_workers == 4);
        CHECK(agreed->key_id == (with_key ? 1 : 0));
      }
      CHECK(pair.target.agreement().node == "reader 1");
    }
  }
}

TEST_CASE("keys rotate: the target takes any of its keys, the gateway uses its first") {
  Pair pair(keys(kSecond + kFirst), keys(kFirst + kSecond));
  pair.talk();
  CHECK(pair.target.state() == State::kDone);
  CHECK(pair.target.agreement().key_id == 2);
}

TEST_CASE("who does not know the key is refused, by either side, and told nothing about it") {
  const std::string other = "1 00000000000000000000000000000000\n";
  Pair wrong(keys(other), keys(kFirst));
  wrong.talk();
  CHECK(wrong.target.state() == State::kFailed);
  CHECK(wrong.gateway.state() == State::kFailed);
  Pair unknown(keys(kSecond), keys(kFirst));
  unknown.talk();
  CHECK(unknown.target.state() == State::kFailed);
  CHECK(unknown.gateway.failure() == wrong.gateway.failure());
  Pair none(PeerKeys{}, keys(kFirst));
  none.talk();
  CHECK(none.target.state() == State::kFailed);
  CHECK(none.gateway.failure() == wrong.gateway.failure());
  // A target that asks for nothing is not one that has proved anything.
  Pair impostor(keys(kFirst), PeerKeys{});
  impostor.talk();
  CHECK(impostor.gateway.state() == State::kFailed);
}

TEST_CASE("what was heard before proves nothing") {
  Pair first(keys(kFirst), keys(kFirst), {.nonce = nonce(1)}, {.nonce = nonce(2)});
  first.talk();
  REQUIRE(first.target.state() == State::kDone);
  // To a target, with another nonce of its own.
  const PeerKeys known = keys(kFirst);
  TargetHandshake target({.nonce = nonce(3)}, known);
  target.feed(joined(first.sent_by_gateway));
  CHECK(target.state() == State::kFailed);
  // To a gateway.
  GatewayHandshake gateway({.nonce = nonce(4)}, known);
  gateway.feed(joined(first.sent_by_target));
  CHECK(gateway.state() == State::kFailed);
  // A gateway's proof is none of a target's.
  GatewayHandshake mirrored({.nonce = nonce(5)}, known);
  mirrored.feed(mirrored.take_output());
  CHECK(mirrored.state() == State::kFailed);
}

TEST_CASE("versions that have nothing in common are said") {
  const PeerKeys none;
  for (const auto& [low, high, fine] : {std::tuple{1, 1, true},
                                        {1, 9, true},
                                        {0, 0, false},
                                        {2, 9, false},
                                        {65535, 65535, false}}) {
    TargetHandshake target({}, none);
    Hello hello;
    hello.min_version = static_cast<std::uint16_t>(low);
    hello.max_version = static_cast<std::uint16_t>(high);
    hello.slots = 1;
    seal(hello, FrameKind::kHello);
    target.feed(std::as_bytes(std::span(&hello, 1)));
    CHECK((target.state() == State::kUnderWay) == fine);
    if (!fine) CHECK(target.failure().find("versions 1 to 1") != std::string::npos);
  }
}

TEST_CASE("garbage, and frames that cannot come now, end it with a sentence") {
  const PeerKeys none;
  std::vector<std::vector<std::byte>> wrong;
  wrong.emplace_back(200, std::byte{0x47});
  const auto add = [&](auto frame, FrameKind kind) {
    seal(frame, kind);
    const auto bytes = std::as_bytes(std::span(&frame, 1));
    wrong.emplace_back(bytes.begin(), bytes.end());
  };
  add(Proof{}, FrameKind::kProof);
  add(Answer{}, FrameKind::kAnswer);
  add(Welcome{}, FrameKind::kWelcome);
  add(Request{}, FrameKind::kRequest);
  Hello hello;  // of no slots
  add(hello, FrameKind::kHello);
  hello.slots = 1;
  hello.magic ^= 1;
  add(hello, FrameKind::kHello);
  hello.magic = kMagic;
  hello.role = Role::kTarget;
  add(hello, FrameKind::kHello);
  hello.role = Role::kGateway;
  hello.target_worker = 1;
  add(hello, FrameKind::kHello);
  for (const auto& bytes : wrong) {
    TargetHandshake target({}, none);
    CHECK(target.feed(bytes) == State::kFailed);
    CHECK_FALSE(target.failure().empty());
    CHECK(target.take_output().size() == sizeof(Refused));
    CHECK(target.feed(bytes) == State::kFailed);
  }
  GatewayHandshake gateway({}, none);
  CHECK(gateway.feed(wrong.front()) == State::kFailed);
}

TEST_CASE("terms that make no sense are not accepted") {
  const PeerKeys none;
  const auto judge = [&](auto&& change) {
    GatewayHandshake gateway({.slots = 8}, none);
    Challenge challenge;
    challenge.version = 1;
    seal(challenge, FrameKind::kChallenge);
    gateway.feed(std::as_bytes(std::span(&challenge, 1)));
    Welcome welcome;
    welcome.slots = 8;
    welcome.max_slice_bytes = kMostSliceBytes;
    change(welcome);
    seal(welcome, FrameKind::kWelcome);
    return gateway.feed(std::as_bytes(std::span(&welcome, 1))) == State::kDone;
  };
  CHECK(judge([](Welcome&) {}));
  CHECK_FALSE(judge([](Welcome& w) { w.slots = 0; }));
  CHECK_FALSE(judge([](Welcome& w) { w.slots = 9; }));
  CHECK_FALSE(judge([](Welcome& w) { w.workers = 0; }));
  CHECK_FALSE(judge([](Welcome& w) { w.worker = 1; }));
  CHECK_FALSE(judge([](Welcome& w) { w.max_slice_bytes = 0; }));
  CHECK_FALSE(judge([](Welcome& w) { w.max_slice_bytes = kMostSliceBytes + 1; }));
}

TEST_CASE("what comes behind the handshake is kept for the connection") {
  Pair pair;
  const auto hello = pair.gateway.take_output();
  pair.target.feed(hello);
  pair.gateway.feed(pair.target.take_output());
  auto proof = pair.gateway.take_output();
  proof.push_back(std::byte{0x5a});
  CHECK(pair.target.feed(proof) == State::kDone);
  REQUIRE(pair.target.leftover().size() == 1);
  CHECK(pair.target.leftover()[0] == std::byte{0x5a});
}

TEST_CASE("nonces are not used twice") {
  CHECK(fresh_nonce().value() != fresh_nonce().value());
}
