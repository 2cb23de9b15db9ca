// What clients that mean harm, or are broken, can do to the control socket.
#include <doctest/doctest.h>
#include <poll.h>

#include <chrono>
#include <thread>
#include <vector>

#include "control/served_http.h"

using kelp::HttpLimits;
using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::UniqueFd;
using kelp::test::has;
using kelp::test::hung_up;
using kelp::test::send_text;
using kelp::test::ServedHttp;

namespace {

HttpResponse fine(const HttpRequest&) {
  return {200, "text/plain", "fine", {}};
}

}  // namespace

TEST_CASE("a client that says nothing is hung up on") {
  const ServedHttp http(fine, {.connections = 4, .silence = std::chrono::seconds(3)});
  const UniqueFd fd = http.connect();
  send_text(fd, "GET / HT");
  CHECK_FALSE(hung_up(fd, 200));
  CHECK(hung_up(fd, 12'000));
}

TEST_CASE("a client that sends a byte now and then is hung up on") {
  const ServedHttp http(fine, {.request = std::chrono::milliseconds(500)});
  const UniqueFd fd = http.connect();
  bool gone = false;
  for (int i = 0; i < 40 && !gone; ++i) {
    gone = !send_text(fd, "x") || hung_up(fd, 50);
  }
  CHECK(gone);
}

TEST_CASE("a client that never reads its answer is hung up on") {
  const std::string body(8 << 20, 'k');
  const ServedHttp http(
      [&](const HttpRequest&) {
        return HttpResponse{200, "text/plain", body, {}};
      },
      {.request = std::chrono::milliseconds(300)});
  const UniqueFd fd = http.connect();
  send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  pollfd gone{fd.get(), 0, 0};  // nothing but that it was hung up on
  REQUIRE(::poll(&gone, 1, 10'000) == 1);
  CHECK(kelp::test::receive_all(fd).size() < body.size());
}

TEST_CASE("requests within their time keep a connection open beyond it") {
  const ServedHttp http(fine, {.request = std::chrono::milliseconds(2000)});
  const UniqueFd fd = http.connect();
  for (int i = 0; i < 6; ++i) {
    if (i != 0) std::this_thread::sleep_for(std::chrono::milliseconds(500));
    REQUIRE(send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    REQUIRE(has(kelp::test::receive_until(fd, "fine"), "fine"));
  }
}

TEST_CASE("headers without end are refused and the server goes on") {
  const ServedHttp http(fine);
  const std::string answer =
      http.ask("GET / HTTP/1.1\r\nX: " + std::string(1 << 20, 'a') + "\r\n\r\n");
  CHECK_FALSE(has(answer, "fine"));
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 20000; ++i) many += "X" + std::to_string(i) + ": y\r\n";
  CHECK_FALSE(has(http.ask(many + "\r\n"), "fine"));
  CHECK_FALSE(has(http.ask("GET /" + std::string(1 << 20, 'a') + " HTTP/1.1\r\n\r\n"), "fine"));
  CHECK(has(http.get("/"), "fine"));
}

TEST_CASE("bytes that are no HTTP are refused and the server goes on") {
  const ServedHttp http(fine);
  std::string noise;
  for (int i = 0; i < 8192; ++i) noise.push_back(static_cast<char>(i * 7919 >> 3));
  for (const std::string& request :
       {noise, std::string("\r\n\r\n\r\n\r\n"), std::string(64, '\0') + "\r\n\r\n",
        std::string("GET\r\n\r\n"), std::string("GET / HTTP/9.9\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n"),
        std::string("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n")}) {
    const UniqueFd fd = http.connect();
    send_text(fd, request);
    CHECK_FALSE(has(kelp::test::receive_all(fd, 200), "fine"));
  }
  CHECK(has(http.get("/"), "fine"));
}

TEST_CASE("more connections than the limit wait, and are served when others leave") {
  const ServedHttp http(fine, {.connections = 64});
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 100; ++i) {
    idle.push_back(http.connect());
    REQUIRE(idle.back());
  }
  const UniqueFd late = http.connect();
  REQUIRE(send_text(late, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  CHECK(kelp::test::receive_all(late, 300).empty());
  idle.clear();
  CHECK(has(kelp::test::receive_all(late), "fine"));
}

TEST_CASE("silent connections cannot keep others out for longer than the limit") {
  const ServedHttp http(fine, {.connections = 8, .silence = std::chrono::seconds(1)});
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 16; ++i) idle.push_back(http.connect());
  const UniqueFd late = http.connect();
  REQUIRE(send_text(late, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  CHECK(has(kelp::test::receive_all(late, 8000), "fine"));
}

TEST_CASE("a server with idle connections sleeps") {
  const ServedHttp http(fine);
  std::vector<UniqueFd> idle;
  for (int i = 0; i < 80; ++i) idle.push_back(http.connect());
  send_text(idle[0], "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  send_text(idle[1], "GET / HTTP/1.1\r\nHo");
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  const auto began = std::chrono::steady_clock::now();
  const std::uint64_t before = http.rounds();
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const std::uint64_t rounds = http.rounds() - before;
  // The loop of this test wakes every 20 ms by itself.
  const auto slept = std::chrono::steady_clock::now() - began;
  CHECK(rounds < 3U * static_cast<std::uint64_t>(slept / std::chrono::milliseconds(20)));
}
