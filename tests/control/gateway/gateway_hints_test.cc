// What a caller may say about the way, and what it may not.
#include <doctest/doctest.h>

#include "control/gateway/gateway_scene.h"

using namespace kelp;
using namespace kelp::test;
using Scene = GatewayScene;

namespace {

TEST_CASE("a server that the caller names is asked first if it is listed or allowed") {
  ScriptedHttp first(serving(content()));
  ScriptedHttp second(serving(content()));
  ScriptedHttp allowed(serving(content()));
  ScriptedHttp stranger(serving(content()));
  Scene scene;
  scene.options.allowed = {parse_server_address(allowed.address()).value()};
  scene.master.place(3, {first.address(), second.address()});
  scene.start();
  for (int i = 0; i < 6; ++i) CHECK(scene.status(3, {.server = second.address()}) == KELP_OK);
  CHECK(second.asked().size() == 6);
  CHECK(scene.status(3, {.server = allowed.address()}) == KELP_OK);
  // It may have volumes of which no master knows.
  CHECK(scene.status(9, {.server = allowed.address()}) == KELP_OK);
  CHECK(allowed.asked().size() == 2);
  const std::string port = second.address().substr(second.address().find(':'));
  for (const std::string& refused :
       {stranger.address(), "localhost" + port, "127.1" + port, std::string("127.0.0.1"),
        second.address() + "/x", "user@" + second.address(), std::string("127.0.0.1:0")}) {
    CAPTURE(refused);
    CHECK(scene.status(3, {.server = refused}) == KELP_DENIED);
  }
  CHECK(scene.counters().servers_refused == 7);
  CHECK(stranger.asked().empty());
  CHECK(first.asked().empty());
}

TEST_CASE("a server that has just got the volume may be named, though the known answer is older") {
  ScriptedHttp before(serving(content()));
  ScriptedHttp after(serving(content()));
  Scene scene;
  scene.options.lookup.ttl = seconds(3600);
  scene.master.place(3, {before.address()});
  scene.start();
  REQUIRE(scene.status(3) == KELP_OK);
  scene.master.place(3, {before.address(), after.address()});
  CHECK(soon([&] { return scene.status(3, {.server = after.address()}) == KELP_OK; }));
  CHECK(after.asked().size() == 1);
}

TEST_CASE("what a server of the caller's choice does not have, those that are listed may") {
  ScriptedHttp allowed(replying(404));
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.options.allowed = {parse_server_address(allowed.address()).value()};
  scene.master.place(3, {server.address()});
  scene.start();
  CHECK(scene.status(3, {.server = allowed.address()}) == KELP_OK);
  CHECK(scene.status(3, {.server = allowed.address()}) == KELP_OK);
  CHECK(scene.status(4, {.server = allowed.address()}) == KELP_UNAVAILABLE);
}

TEST_CASE("a token is sent as it is given, else one is signed, else there is none") {
  ScriptedHttp server([](Peer& peer, const Asked& asked) {
    if (asked.header("Authorization") == "Bearer wrong") {
      peer.send(http_reply(401));
    } else {
      answer_needle(peer, asked, content());
    }
  });
  Scene scene;
  scene.options.read_key = "secret";
  scene.master.place(3, {server.address()});
  scene.start();
  CHECK(scene.status(3, {.token = "a.b.c"}) == KELP_OK);
  CHECK(scene.status(3) == KELP_OK);
  CHECK(scene.status(3, {.stat = true}) == KELP_OK);
  CHECK(scene.status(3, {.token = "wrong"}) == KELP_DENIED);
  const auto asked = server.asked();
  REQUIRE(asked.size() == 4);
  CHECK(asked[0].header("Authorization") == "Bearer a.b.c");
  CHECK(asked[1].header("Authorization").starts_with("Bearer eyJ"));
  CHECK(asked[2].header("Authorization").starts_with("Bearer eyJ"));
  // Of masters nobody wants any.
  CHECK(scene.report_of(server.address()).breaker == "closed");
}

TEST_CASE("hints that could say more than they may are INVALID, and nobody is asked") {
  ScriptedHttp server(serving(content()));
  Scene scene;
  scene.master.place(3, {server.address()});
  scene.start();
  for (const char* text : {"a\r\nX-Evil: 1", "a\nb", "a b", "a\tb", "\x7f", "\x80", "\xff", "\r"}) {
    CAPTURE(text);
    CHECK(scene.status(3, {.token = text}) == KELP_INVALID);
    CHECK(scene.status(3, {.server = text}) == KELP_INVALID);
  }
  RemoteRequest lying = scene.request(0, 3, {.token = "t"});
  for (const std::uint16_t bytes : {std::uint16_t{1021}, std::uint16_t{0xffff}}) {
    std::memcpy(scene.hints.data(), &bytes, 2);
    scene.send(lying);
    CHECK(scene.answer().outcome.status == KELP_INVALID);
  }
  // A zero would end the text for whoever takes it for a C string.
  REQUIRE(write_hints(std::string_view("a\0b", 3), "", scene.hints_of(0)));
  scene.send(lying);
  CHECK(scene.answer().outcome.status == KELP_INVALID);
  CHECK(server.asked().empty());
  CHECK(scene.master.asked() == 0);
}

}  // namespace
