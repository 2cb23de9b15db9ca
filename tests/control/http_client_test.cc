#include "control/http_client.h"

#include <doctest/doctest.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>

#include "support/scripted_http.h"

using kelp::HttpAnswer;
using kelp::HttpClient;
using kelp::HttpHead;
using kelp::HttpSink;
using kelp::test::BoundPort;
using kelp::test::http_reply;
using kelp::test::ScriptedHttp;
using std::chrono::milliseconds;

namespace {

/// The loop its users write.
struct Scene {
  static constexpr milliseconds kLook{2};

  explicit Scene(kelp::HttpClientOptions options = {})
      : client(HttpClient::create(options).value()) {}

  template <class Condition>
  bool until(Condition&& condition, milliseconds patience = std::chrono::seconds(30)) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      const auto now = std::chrono::steady_clock::now();
      if (now > end) return false;
      // Short: what the condition is about may come from elsewhere.
      const milliseconds wait = std::min(client.timeout().value_or(kLook), kLook);
      pollfd source{client.epoll_fd(), POLLIN, 0};
      ::poll(&source, 1, static_cast<int>(wait.count()));
      client.run();
    }
    return true;
  }
  HttpAnswer ask(HttpClient::Request request) {
    std::optional<HttpAnswer> got;
    client.ask(std::move(request), [&](HttpAnswer answer) { got = std::move(answer); });
    REQUIRE(until([&] { return got.has_value(); }));
    return *got;
  }

  HttpClient client;
};

struct Sink final : HttpSink {
  bool begin(const HttpHead& head) override {
    ++begun;
    status = head.status();
    header = std::string(head.header("x-thing"));
    absent = std::string(head.header("x-other"));
    return wants_any;
  }
  bool take(std::span<const std::byte> part) override {
    body.append(reinterpret_cast<const char*>(part.data()), part.size());
    return body.size() < most;
  }

  bool wants_any = true;
  std::size_t most = SIZE_MAX;
  int begun = 0;
  int status = 0;
  std::string header;
  std::string absent;
  std::string body;
};

void answer_ok(ScriptedHttp::Peer& peer, const ScriptedHttp::Asked& asked) {
  const std::string body = asked.method == "HEAD" ? "" : "the body";
  peer.send(http_reply(200, {"X-Thing: first", "x-thing: last"}, body));
}

}  // namespace

TEST_CASE("a sink hears the head once, and then the body") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  Sink sink;
  const HttpAnswer answer = scene.ask({.url = "http://" + server.address() + "/a", .sink = &sink});
  CHECK(answer.status == 200);
  CHECK(answer.body.empty());
  CHECK(sink.begun == 1);
  CHECK(sink.status == 200);
  CHECK(sink.header == "last");
  CHECK(sink.absent.empty());
  CHECK(sink.body == "the body");
}

TEST_CASE("a sink hears of answers without a body too") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  Sink sink;
  const HttpAnswer answer = scene.ask({.url = "http://" + server.address() + "/a",
                                       .method = HttpClient::Method::kHead,
                                       .sink = &sink});
  CHECK(answer.status == 200);
  CHECK(sink.begun == 1);
  CHECK(sink.header == "last");
  CHECK(sink.body.empty());
  CHECK(server.asked().at(0).method == "HEAD");
}

TEST_CASE("a sink that has enough ends the request, and no other") {
  ScriptedHttp server(
      [](auto& peer, const auto&) { peer.send(http_reply(200, {}, std::string(1 << 20, 'x'))); });
  Scene scene;
  Sink enough;
  enough.most = 1000;
  Sink nothing;
  nothing.wants_any = false;
  Sink all;
  const std::string url = "http://" + server.address() + "/a";
  int ended = 0;
  for (Sink* sink : {&enough, &nothing, &all}) {
    scene.client.ask({.url = url, .sink = sink}, [&ended, sink, &all](const HttpAnswer& answer) {
      ++ended;
      CHECK((answer.status == 200) == (sink == &all));
      CHECK(answer.error.empty() == (sink == &all));
      CHECK_FALSE(answer.timed_out);
      CHECK(answer.reached);
    });
  }
  REQUIRE(scene.until([&] { return ended == 3; }));
  CHECK(enough.body.size() >= 1000);
  CHECK(nothing.body.empty());
  CHECK(all.body.size() == 1 << 20);
}

TEST_CASE("headers are sent as they are given, and do not stay with the connection") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  const std::string url = "http://" + server.address() + "/a";
  CHECK(
      scene.ask({.url = url, .headers = {"Range: bytes=0-9", "Authorization: Bearer t"}}).status ==
      200);
  CHECK(scene.ask({.url = url, .method = HttpClient::Method::kHead}).status == 200);
  CHECK(scene.ask({.url = url}).body == "the body");
  const auto asked = server.asked();
  REQUIRE(asked.size() == 3);
  CHECK(asked[0].header("Range") == "bytes=0-9");
  CHECK(asked[0].header("Authorization") == "Bearer t");
  CHECK(asked[0].header("Accept-Encoding").empty());
  for (const std::size_t later : {1U, 2U}) {
    CHECK(asked[later].header("Range").empty());
    CHECK(asked[later].header("Authorization").empty());
  }
  CHECK(asked[2].method == "GET");
  CHECK(server.connections() == 1);
}

TEST_CASE("a redirect is an answer, not a way") {
  ScriptedHttp elsewhere(answer_ok);
  ScriptedHttp server([&](auto& peer, const auto&) {
    peer.send(http_reply(302, {"Location: http://" + elsewhere.address() + "/"}, "moved"));
  });
  Scene scene;
  const HttpAnswer answer = scene.ask({.url = "http://" + server.address() + "/a"});
  CHECK(answer.status == 302);
  CHECK(answer.body == "moved");
  CHECK(elsewhere.asked().empty());
}

TEST_CASE("no listener, no answer and no end are told apart") {
  const BoundPort nobody;
  ScriptedHttp silent([](auto& peer, const auto&) { peer.stall(); });
  ScriptedHttp endless([](auto& peer, const auto&) {
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    peer.stall();
  });
  ScriptedHttp broken([](auto& peer, const auto&) { peer.hang_up(); });
  Scene scene;
  HttpAnswer answer = scene.ask({.url = "http://" + nobody.address() + "/"});
  CHECK(answer.status == 0);
  CHECK_FALSE(answer.reached);
  CHECK_FALSE(answer.timed_out);
  CHECK_FALSE(answer.error.empty());
  for (ScriptedHttp* server : {&silent, &endless}) {
    answer =
        scene.ask({.url = "http://" + server->address() + "/", .deadline = milliseconds(2000)});
    CHECK(answer.status == 0);
    CHECK(answer.reached);
    CHECK(answer.timed_out);
  }
  answer = scene.ask({.url = "http://" + broken.address() + "/"});
  CHECK(answer.status == 0);
  CHECK(answer.reached);
  CHECK_FALSE(answer.timed_out);
}

TEST_CASE("a connection that does not come about in time was not reached") {
  // A queue that is full: what connects from now on hears nothing.
  BoundPort full;
  REQUIRE(::listen(full.fd.get(), 0) == 0);
  std::vector<kelp::UniqueFd> waiting;
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  address.sin_port = ::htons(full.port);
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    ::connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  Scene scene;
  const HttpAnswer answer =
      scene.ask({.url = "http://" + full.address() + "/", .connect_deadline = milliseconds(100)});
  CHECK(answer.status == 0);
  CHECK(answer.timed_out);
  CHECK_FALSE(answer.reached);
}

TEST_CASE("a cancelled request is not heard of again, and its place is used anew") {
  ScriptedHttp server([](auto& peer, const auto& asked) {
    if (asked.target == "/stalled") return peer.stall();
    peer.send(http_reply(200, {}, "fine"));
  });
  Scene scene;
  const std::string url = "http://" + server.address();
  for (int i = 0; i < 50; ++i) {
    Sink sink;
    // A connection that is kept has the request before ask() returns.
    const std::size_t before = server.asked().size();
    const auto ticket = scene.client.ask(
        {.url = url + "/stalled", .sink = &sink},
        [](const HttpAnswer& answer) { FAIL("it was cancelled: " << answer.error); });
    if (i % 2 == 0) {
      REQUIRE(scene.until([&] { return server.asked().size() > before; }));
    }
    scene.client.cancel(ticket);
    scene.client.cancel(ticket);
    CHECK(scene.ask({.url = url + "/fine"}).body == "fine");
    CHECK(sink.begun == 0);
  }
  scene.client.cancel(12345);
}

TEST_CASE("requests may be asked and cancelled from where others end") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  const std::string url = "http://" + server.address() + "/";
  std::vector<HttpClient::Ticket> tickets;
  int ended = 0;
  int asked_again = 0;
  for (int i = 0; i < 20; ++i) {
    tickets.push_back(scene.client.ask({.url = url}, [&](const HttpAnswer&) {
      ++ended;
      // All of them, whether they have ended, are about to be told, or are under way.
      for (const HttpClient::Ticket each : tickets) scene.client.cancel(each);
      scene.client.ask({.url = url}, [&](const HttpAnswer&) { ++asked_again; });
    }));
  }
  REQUIRE(scene.until([&] { return ended > 0 && asked_again == ended; }));
}

TEST_CASE("a client goes with requests under way") {
  ScriptedHttp server([](auto& peer, const auto&) { peer.stall(); });
  Sink sink;
  {
    Scene scene;
    for (int i = 0; i < 20; ++i) {
      scene.client.ask({.url = "http://" + server.address() + "/", .sink = &sink},
                       [](const HttpAnswer&) { FAIL("nobody is there any more"); });
    }
    scene.until([&] { return server.asked().size() == 20; });
  }
  CHECK(sink.begun == 0);
}

TEST_CASE("no more connections to a server are made than allowed, and all requests are answered") {
  ScriptedHttp server(answer_ok);
  Scene scene({.ca_file = "", .connections_per_server = 2});
  int answered = 0;
  for (int i = 0; i < 100; ++i) {
    scene.client.ask({.url = "http://" + server.address() + "/"},
                     [&](const HttpAnswer& answer) { answered += answer.status == 200 ? 1 : 0; });
  }
  REQUIRE(scene.until([&] { return answered == 100; }));
  CHECK(server.connections() <= 2);
}

TEST_CASE("an answer longer than allowed is none, unless a sink takes it") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  const std::string url = "http://" + server.address() + "/";
  CHECK(scene.ask({.url = url, .max_body_bytes = 8}).body == "the body");
  CHECK(scene.ask({.url = url, .max_body_bytes = 7}).status == 0);
  Sink sink;
  CHECK(scene.ask({.url = url, .max_body_bytes = 0, .sink = &sink}).status == 200);
}

TEST_CASE("a kept connection that the server has closed is not an answer: another is made") {
  std::atomic<int> answers{0};
  ScriptedHttp server([&](auto& peer, const auto&) {
    // Every second request meets a connection that ends under it.
    if (++answers % 2 == 0) return peer.hang_up();
    peer.send(http_reply(200, {}, "fine"));
  });
  Scene scene;
  const std::string url = "http://" + server.address() + "/";
  CHECK(scene.ask({.url = url}).body == "fine");
  CHECK(scene.ask({.url = url}).body == "fine");  // the second, and again as the third
  CHECK(server.asked().size() == 3);
  CHECK(server.connections() == 2);
}

TEST_CASE("a request larger than a socket takes at once is sent all the same") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  const std::string large(4 << 20, 'x');
  // This server looks for the end of a head again with each piece of it.
  const HttpAnswer answer = scene.ask({.url = "http://" + server.address() + "/a",
                                       .deadline = std::chrono::seconds(20),
                                       .headers = {"X-Large: " + large}});
  CHECK(answer.body == "the body");
  CHECK(server.asked().at(0).header("X-Large").size() == large.size());
}

TEST_CASE("what would be another header, or another request, is not sent") {
  ScriptedHttp server(answer_ok);
  Scene scene;
  const std::string base = "http://" + server.address();
  CHECK(scene.ask({.url = base + "/a", .headers = {"X: y\r\nZ: z"}}).status == 0);
  for (const std::string& url : {base + "/a b", base + "/a\r\nX: y", "http://u@" + server.address(),
                                 base + "/a#b", base + "\\@x/", std::string("http://")}) {
    CAPTURE(url);
    const HttpAnswer answer = scene.ask({.url = url});
    CHECK(answer.status == 0);
    CHECK_FALSE(answer.reached);
  }
  CHECK(server.asked().empty());
}

TEST_CASE("only http and https are spoken") {
  Scene scene;
  for (const char* url : {"file:///etc/hostname", "ftp://127.0.0.1/", "gopher://127.0.0.1/", ""}) {
    CAPTURE(url);
    CHECK(scene.ask({.url = url}).status == 0);
  }
}

TEST_CASE(
    "connections that servers end at any time cost no request, nor give it another's answer") {
  std::atomic<unsigned> answers = 0;
  const ScriptedHttp::Script script = [&](ScriptedHttp::Peer& peer, const auto& asked) {
    peer.send(http_reply(200, {}, asked.target));
    if (++answers % 5 == 0) peer.hang_up();
  };
  ScriptedHttp first(script);
  ScriptedHttp second(script);
  Scene scene;
  // Libcurl looks at the connections it knows of once a second.
  const auto end = std::chrono::steady_clock::now() + milliseconds(2500);
  unsigned asked = 0;
  unsigned done = 0;
  unsigned wrong = 0;
  const std::function<void()> ask_one = [&] {
    const std::string target = "/" + std::to_string(++asked);
    scene.client.ask(
        {.url = "http://" + (asked % 2 == 0 ? first : second).address() + target,
         .deadline = std::chrono::seconds(20)},
        [&, target](const HttpAnswer& answer) {
          ++done;
          if (answer.status != 200 || answer.body != target) {
            ++wrong;
            MESSAGE(target << ": " << answer.status << " " << answer.body << " " << answer.error);
          }
          if (std::chrono::steady_clock::now() < end) ask_one();
        });
  };
  for (int i = 0; i < 24; ++i) ask_one();
  CHECK(scene.until([&] { return done == asked; }, std::chrono::seconds(60)));
  CHECK(wrong == 0);
  CHECK(done > 100);
}
