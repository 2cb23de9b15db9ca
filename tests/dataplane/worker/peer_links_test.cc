#include "dataplane/worker/peer_links.h"

#include <doctest/doctest.h>
#include <sys/epoll.h>

#include "support/link_lab.h"
#include "support/tcp_pair.h"

using kelp::NewLink;
using kelp::PeerLinks;
using kelp::TickRate;
using kelp::test::GatewayEar;
using kelp::test::LinkLab;
using kelp::test::ScriptedTarget;
using kelp::test::TcpPair;

namespace {

constexpr std::uint32_t kVolume = 7;

/// The links of a worker that is connected to peer 3.
struct Connected {
  Connected() {
    auto made = std::make_unique<NewLink>();
    made->role = NewLink::Role::kGateway;
    made->socket = std::move(pair.a);
    made->agreement = LinkLab::agreed();
    made->peer = 3;
    REQUIRE(links.add(std::move(made), ear, target, epoll.get()));
  }

  TcpPair pair;
  kelp::UniqueFd epoll{::epoll_create1(EPOLL_CLOEXEC)};
  GatewayEar ear;
  ScriptedTarget target;
  PeerLinks links;
};

}  // namespace

TEST_CASE("a peer is asked by the ways that are up") {
  Connected lab;
  CHECK(lab.links.link_to(3, kVolume, KELP_PATH_TCP) != nullptr);
  CHECK(lab.links.link_to(3, kVolume, KELP_PATH_VERBS) == nullptr);
  CHECK(lab.links.link_to(4, kVolume, KELP_PATH_TCP) == nullptr);
}

TEST_CASE("of a route whose time is up one read finds out anew, and the others go on by it") {
  Connected lab;
  const kelp::Ticks second = TickRate::instance().from_us(1'000'000);
  CHECK_FALSE(lab.links.peer_for(kVolume, 0));
  lab.links.learn(kVolume, 3, 10 * second);
  CHECK(lab.links.peer_for(kVolume, 10 * second - 1) == 3U);
  CHECK_FALSE(lab.links.peer_for(kVolume, 10 * second));
  for (int i = 0; i < 100; ++i) CHECK(lab.links.peer_for(kVolume, 10 * second + 1) == 3U);
  // Nobody found out: the next one is to.
  CHECK_FALSE(lab.links.peer_for(kVolume, 13 * second));
  CHECK(lab.links.peer_for(kVolume, 13 * second + 1) == 3U);
  lab.links.learn(kVolume, 5, 100 * second);
  CHECK(lab.links.peer_for(kVolume, 50 * second) == 5U);
  lab.links.forget(kVolume);
  CHECK_FALSE(lab.links.peer_for(kVolume, 50 * second));
}
