// Which kelpd is beside which volume server: as configured, as guessed, or none.
#include "control/peers/peer_directory.h"

#include <doctest/doctest.h>

using namespace kelp;

namespace {

KnownPeer known(const char* text) {
  return parse_known_peer(text).value();
}

}  // namespace

TEST_CASE("a kelpd is beside the servers of its host, or beside those it is given for") {
  PeerDirectory directory({known("10.0.0.1:18516"), known("10.0.0.2:8080=10.9.0.2:1000"),
                           known("storage-3=10.9.0.3:1000"), known("[2001:db8::4]:18516")},
                          {});
  CHECK(directory.beside("10.0.0.1:8080") == 0);
  CHECK(directory.beside("10.0.0.1:9999") == 0);
  CHECK(directory.beside("10.0.0.2:8080") == 1);
  CHECK(directory.beside("10.0.0.2:8081") == kNoPeer);
  CHECK(directory.beside("10.9.0.2:8080") == kNoPeer);
  CHECK(directory.beside("storage-3:1") == 2);
  CHECK(directory.beside("storage-3:2") == 2);
  CHECK(directory.beside("[2001:db8::4]:8080") == 3);
  CHECK(directory.beside("10.0.0.9:8080") == kNoPeer);
  CHECK(directory.beside("") == kNoPeer);
  CHECK(directory.beside("no address") == kNoPeer);
}

TEST_CASE("what cannot be a kelpd is refused with the text in question") {
  for (const char* text : {"", "host", "host:0", "=host:1", "a b=host:1", "host:1=", "a=b=c:1",
                           "http://user@host:1", "host:99999"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_known_peer(text));
  }
}

TEST_CASE("others are guessed at the usual port, each host once, where they would be spoken to") {
  PeerDirectory directory({known("10.0.0.1:1000")}, {true, false, {{"0.0.0.0", kPeerPort}}});
  CHECK(directory.beside("10.0.0.1:8080") == 0);
  CHECK(directory.beside("10.0.0.2:8080") == 1);
  CHECK(directory.beside("10.0.0.3:8080") == 2);
  CHECK(directory.beside("10.0.0.2:8081") == 1);
  // That would be ourselves.
  CHECK(directory.beside("127.0.0.1:8080") == kNoPeer);
  CHECK(directory.beside("localhost:8080") == kNoPeer);
  const auto guessed = directory.from(1);
  REQUIRE(guessed.size() == 2);
  CHECK(guessed[0].kelpd == ServerAddress{"10.0.0.2", kPeerPort});
  CHECK(guessed[0].guessed);
  CHECK(directory.from(3).empty());

  PeerDirectory careful({}, {true, true, {}});
  CHECK(careful.beside("10.0.0.2:8080") == kNoPeer);
  CHECK(careful.beside("127.0.0.1:8080") == 0);
  PeerDirectory quiet({}, {});
  CHECK(quiet.beside("127.0.0.1:8080") == kNoPeer);
}

TEST_CASE("a cluster of many hosts cannot make it grow for ever") {
  PeerDirectory directory({}, {true, false, {}});
  for (int i = 0; i < 3000; ++i) {
    directory.beside("10.1." + std::to_string(i / 250) + "." + std::to_string(i % 250) + ":8080");
  }
  CHECK(directory.from(0).size() == 1024);
}
