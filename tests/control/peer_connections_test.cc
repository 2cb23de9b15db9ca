// Who is let in at the door for other kelpds, and who is not. Real sockets, workers that do not
// run.
#include "control/peers/peer_connections.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <string>
#include <vector>

#include "support/scripted_http.h"

using namespace kelp;
using kelp::test::BoundPort;

namespace {

wire::PeerKeys keys(const std::string& text) {
  return wire::PeerKeys::parse(text).value();
}
const std::string kKey = "1 00112233445566778899aabbccddeeff\n";
const std::string kOther = "1 ffeeddccbbaa99887766554433221100\n";

/// A port of 127.0.0.1 at which nobody listens but who does on purpose: while it is held, the
/// kernel gives it to nobody who asks for any port, or connects from one.
struct HeldPort {
  UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::uint16_t number = 0;

  HeldPort() {
    // Of both sockets: then one that does not listen keeps nobody from the port.
    const int on = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    auto* const plain = reinterpret_cast<sockaddr*>(&address);
    socklen_t length = sizeof address;
    REQUIRE(::bind(fd.get(), plain, length) == 0);
    REQUIRE(::getsockname(fd.get(), plain, &length) == 0);
    number = ::ntohs(address.sin_port);
  }
};

PeerOptions listening(std::uint16_t port, const std::string& key = "") {
  PeerOptions options;
  options.listen = {{"127.0.0.1", port}};
  options.keys = keys(key);
  return options;
}

/// A plain connection to it.
struct Stranger {
  explicit Stranger(std::uint16_t port)
      : socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    address.sin_port = ::htons(port);
    ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  void say(std::span<const std::byte> bytes) {
    pollfd source{socket.get(), POLLOUT, 0};
    ::poll(&source, 1, 1000);
    static_cast<void>(!::send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL));
  }
  /// Takes what has come; false: the other end is closed.
  bool listen() {
    std::byte room[4096];
    while (true) {
      const ssize_t got = ::recv(socket.get(), room, sizeof room, MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) return true;
      if (got <= 0) return false;
      heard.insert(heard.end(), room, room + got);
    }
  }

  UniqueFd socket;
  std::vector<std::byte> heard;
};

struct Door {
  explicit Door(PeerOptions options) {
    auto made = PeerConnections::create(std::move(options));
    REQUIRE(made);
    connections = std::move(*made);
    connections->start({&worker});
  }
  template <class Condition>
  bool until(Condition&& condition, std::chrono::milliseconds patience = std::chrono::seconds(20)) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      connections->run();
    }
    return true;
  }
  /// A gateway that does all it should; whether it was let in.
  bool lets_in(std::uint16_t port, const std::string& key, std::uint16_t slots = 4) {
    const wire::PeerKeys known = keys(key);
    wire::GatewayOffer offer;
    offer.slots = slots;
    offer.nonce = wire::fresh_nonce().value();
    wire::GatewayHandshake handshake(offer, known);
    Stranger gateway(port);
    until([&] {
      if (const auto bytes = handshake.take_output(); !bytes.empty()) gateway.say(bytes);
      const bool open = gateway.listen();
      handshake.feed(std::exchange(gateway.heard, {}));
      return handshake.state() != wire::Handshake::State::kUnderWay || !open;
    });
    return handshake.state() == wire::Handshake::State::kDone;
  }

  Worker worker{WorkerOptions{}};
  std::unique_ptr<PeerConnections> connections;
};

}  // namespace

TEST_CASE("who knows the key is let in, whoever does not is told that, and counted") {
  const HeldPort held;
  const std::uint16_t port = held.number;
  Door door(listening(port, kKey));
  CHECK(door.lets_in(port, kKey));
  CHECK_FALSE(door.lets_in(port, kOther));
  CHECK_FALSE(door.lets_in(port, ""));
  const auto reports = door.connections->reports();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].state == "up");
  CHECK(reports[0].key_id == 1);
  CHECK_FALSE(reports[0].target);
  CHECK(door.connections->counters().accepted == 3);
  CHECK(door.connections->counters().refused == 2);
}

TEST_CASE("garbage, another version and silence are refused, others are let in meanwhile") {
  const HeldPort held;
  const std::uint16_t port = held.number;
  Door door(listening(port));
  Stranger garbage(port);
  const auto silent_since = std::chrono::steady_clock::now();
  Stranger silent(port);
  Stranger newer(port);
  garbage.say(std::vector<std::byte>(300, std::byte{'x'}));
  wire::Hello hello;
  hello.min_version = hello.max_version = 7;
  hello.slots = 1;
  wire::seal(hello, wire::FrameKind::kHello);
  newer.say(std::as_bytes(std::span(&hello, 1)));
  REQUIRE(door.until([&] { return !garbage.listen() && !newer.listen(); }));
  for (Stranger* each : {&garbage, &newer}) {
    REQUIRE(each->heard.size() == sizeof(wire::Refused));
    const auto refused = wire::copy_frame<wire::Refused>(each->heard);
    CHECK_FALSE(wire::printable(refused.message).empty());
  }
  CHECK(door.lets_in(port, ""));
  const bool heard_on = silent.listen();
  // Or else this machine stood still.
  if (std::chrono::steady_clock::now() - silent_since < wire::kHandshakeLimit * 3 / 4) {
    CHECK(heard_on);
  }
  CHECK(door.until([&] { return !silent.listen(); }, wire::kHandshakeLimit * 5));
  CHECK(silent.heard.empty());
}

TEST_CASE("of many that stay half open the oldest go, and whoever knows what to say is let in") {
  const HeldPort held;
  const std::uint16_t port = held.number;
  Door door(listening(port));
  std::vector<std::unique_ptr<Stranger>> strangers;
  for (int i = 0; i < 300; ++i) {
    strangers.push_back(std::make_unique<Stranger>(port));
    if (i % 50 == 0) CHECK(door.lets_in(port, ""));
    door.connections->run();
  }
  CHECK(door.lets_in(port, ""));
  const auto still_open =
      std::ranges::count_if(strangers, [](const auto& each) { return each->listen(); });
  CHECK(still_open <= 64);
}

TEST_CASE("other hosts are not spoken to without a key, unless somebody says so") {
  const HeldPort port;
  PeerOptions options = listening(port.number);
  options.listen[0].host = "0.0.0.0";
  CHECK_FALSE(PeerConnections::create(options));
  options.allow_unauthenticated = true;
  CHECK(PeerConnections::create(options));
  options.allow_unauthenticated = false;
  options.keys = keys(kKey);
  CHECK(PeerConnections::create(options));
  PeerOptions dialling;
  dialling.kelpds = {{{"192.0.2.1", 18516}}};
  const auto refused = PeerConnections::create(dialling);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().what.find("peer.kelpds") != std::string::npos);
  CHECK(refused.error().what.find("peer.keys_file") != std::string::npos);
  dialling.keys = keys(kKey);
  CHECK(PeerConnections::create(dialling));
}

TEST_CASE("a name is looked up, and what cannot be found is said and tried again") {
  const HeldPort held;
  const std::uint16_t port = held.number;
  PeerOptions options;
  // RFC 6761: a name that nobody may have.
  options.kelpds = {{{"localhost", port}}, {{"kelp.invalid", 18516}}};
  Door gateway(options);
  Door target(listening(port));
  CHECK(gateway.until([&] {
    target.connections->run();
    const auto reports = gateway.connections->reports();
    return reports.at(0).state == "up" && reports.at(1).error.find("kelp.invalid") < 200;
  }));
  CHECK(gateway.connections->reports().at(1).state != "up");
}

TEST_CASE(
    "a kelpd that is guessed is looked for once, and its absence is no failure of anybody's") {
  PeerOptions options;
  options.discover = true;
  options.allow_unauthenticated = true;
  Door gateway(options);
  CHECK(gateway.connections->directory().beside("127.0.0.91:8080") == 0);
  CHECK(gateway.connections->directory().beside("127.0.0.91:8081") == 0);
  REQUIRE(gateway.until([&] { return gateway.connections->counters().failed == 1; }));
  const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  gateway.until([&] { return std::chrono::steady_clock::now() > end; });
  CHECK(gateway.connections->counters().failed == 1);
  const auto reports = gateway.connections->reports();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].address == "127.0.0.91:18516");
  CHECK(reports[0].guessed);
  CHECK(reports[0].state == "absent");
}

TEST_CASE("a port that is taken is said at start") {
  const BoundPort taken;
  REQUIRE(::listen(taken.fd.get(), 1) == 0);
  const auto refused = PeerConnections::create(listening(taken.port));
  REQUIRE_FALSE(refused);
  CHECK(refused.error().what.find(std::to_string(taken.port)) != std::string::npos);
}

TEST_CASE("a target that is not there is tried again, less and less often, and reached at last") {
  const HeldPort held;
  const std::uint16_t port = held.number;
  PeerOptions options;
  options.kelpds = {{{"127.0.0.1", port}}};
  Door gateway(options);
  REQUIRE(gateway.until([&] { return gateway.connections->counters().failed >= 3; }));
  CHECK(gateway.connections->reports().at(0).state != "up");
  CHECK_FALSE(gateway.connections->reports().at(0).error.empty());
  Door target(listening(port));
  CHECK(gateway.until([&] {
    target.connections->run();
    return gateway.connections->reports().at(0).state == "up";
  }));
  CHECK(target.connections->reports().size() == 1);
}
