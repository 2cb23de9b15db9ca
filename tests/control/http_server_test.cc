#include "control/http_server.h"

#include <doctest/doctest.h>

#include <atomic>
#include <stdexcept>
#include <thread>

#include "control/served_http.h"

using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::test::has;
using kelp::test::ServedHttp;

namespace {

HttpResponse text_answer(std::string body) {
  return {200, "text/plain", std::move(body), {}, {}};
}

/// Says back what it was asked.
HttpResponse echo(const HttpRequest& request) {
  std::string body = request.method + " [" + request.path + "]";
  for (const auto& [name, value] : request.query) body += " " + name + "=" + value;
  return text_answer(body);
}

kelp::HttpRoutes two_routes() {
  kelp::HttpRoutes routes;
  routes.add("GET", "/health", [](const HttpRequest&) { return text_answer("fine"); });
  routes.add("POST", "/drain", [](const HttpRequest&) { return text_answer("draining"); });
  return routes;
}

}  // namespace

TEST_CASE("a request arrives with method, path and query, decoded") {
  const ServedHttp http(echo);
  CHECK(has(http.get("/a%20b?x=1&y=%26&z"), "\r\n\r\nGET [/a b] x=1 y=& z="));
  CHECK(has(http.ask("POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n"
                     "\r\n"),
            "POST [/p]"));
}

TEST_CASE("an answer carries its status, type and length") {
  const ServedHttp http([](const HttpRequest&) {
    return HttpResponse{503, "application/json", "{}", {}};
  });
  const std::string answer = http.get("/");
  CHECK(answer.starts_with("HTTP/1.1 503 "));
  CHECK(has(answer, "Content-Type: application/json\r\n"));
  CHECK(has(answer, "Content-Length: 2\r\n"));
}

TEST_CASE("a HEAD gets the headers of the GET and no body") {
  const ServedHttp http(echo);
  const std::string answer = http.ask("HEAD /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(has(answer, "Content-Length: 8\r\n"));
  CHECK(answer.ends_with("\r\n\r\n"));
}

TEST_CASE("one connection serves many requests, pipelined ones in order") {
  const ServedHttp http(echo);
  const kelp::UniqueFd fd = http.connect();
  std::string requests;
  for (int i = 0; i < 50; ++i) {
    requests += "GET /" + std::to_string(i) + "; HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  REQUIRE(kelp::test::send_text(fd, requests));
  const std::string answers = kelp::test::receive_until(fd, "[/49;]");
  std::size_t at = 0;
  for (int i = 0; i < 50; ++i) {
    at = answers.find("[/" + std::to_string(i) + ";]", at);
    REQUIRE(at != std::string::npos);
  }
}

TEST_CASE("an answer of megabytes arrives whole") {
  const std::string body(5 << 20, 'k');
  const ServedHttp http([&](const HttpRequest&) { return text_answer(body); });
  CHECK(http.get("/").size() > body.size());
}

TEST_CASE("a client that leaves in the middle of an answer harms nobody") {
  const ServedHttp http([](const HttpRequest&) { return text_answer(std::string(5 << 20, 'k')); });
  for (int i = 0; i < 20; ++i) {
    const kelp::UniqueFd fd = http.connect();
    kelp::test::send_text(fd, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  }
  CHECK(has(http.get("/"), "200 OK"));
}

TEST_CASE("unknown paths and methods are answered with JSON") {
  const ServedHttp http(two_routes());
  CHECK(has(http.get("/health"), "fine"));
  const std::string missing = http.get("/none");
  CHECK(has(missing, "404"));
  CHECK(has(missing, "{\"error\":\"nothing is served at this path; there are /drain /health\"}"));
  const std::string wrong = http.get("/drain");
  CHECK(has(wrong, "405"));
  CHECK(has(wrong, "Allow: POST\r\n"));
  CHECK(has(wrong, "{\"error\":"));
}

TEST_CASE("only exact paths are served") {
  const ServedHttp http(two_routes());
  for (const char* path : {"/health/", "//health", "/../health", "/health/..", "/%2e%2e/etc/passwd",
                           "/../../../../etc/passwd", "/health%00", "/health%00x", "/HEALTH"}) {
    CAPTURE(path);
    const std::string answer = http.get(path);
    CHECK(has(answer, "404"));
    CHECK_FALSE(has(answer, "root:"));
  }
}

TEST_CASE("a method nobody serves is refused before its body is read") {
  const ServedHttp http(echo);
  const std::string answer = http.ask(
      "PUT /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n" + std::string(4096, 'b'));
  CHECK(has(answer, "405"));
  CHECK(has(answer, "Allow: GET, HEAD, POST"));
  CHECK(has(answer, "{\"error\":"));
}

TEST_CASE("a request with a body is refused") {
  const ServedHttp http(echo);
  CHECK(has(http.ask("POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"), "400"));
  const std::string chunked = http.ask(
      "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
  CHECK(has(chunked, "400"));
  CHECK(has(chunked, "{\"error\":"));
}

TEST_CASE("a handler that throws becomes a 500, and the server goes on") {
  const ServedHttp http([](const HttpRequest& request) -> HttpResponse {
    if (request.path == "/bad") throw std::runtime_error("no \"luck\"");
    return text_answer("fine");
  });
  CHECK(has(http.get("/bad"), "{\"error\":\"no \\\"luck\\\"\"}"));
  CHECK(has(http.get("/good"), "fine"));
}

TEST_CASE("an answer that comes later keeps nobody else waiting") {
  std::atomic<bool> there{false};
  const ServedHttp http([&](const HttpRequest& request) {
    HttpResponse answer = text_answer("at once");
    if (request.path == "/later") {
      answer.later = [&]() -> std::optional<HttpResponse> {
        if (!there) return std::nullopt;
        return text_answer("at last");
      };
    }
    return answer;
  });
  const auto waiting = http.connect();
  kelp::test::send_text(waiting, "GET /later HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK(has(http.get("/now"), "at once"));
  there = true;
  CHECK(has(kelp::test::receive_all(waiting), "at last"));
}

TEST_CASE("a server may end, and a client leave, while an answer is waited for") {
  std::atomic<int> asked{0};
  std::atomic<bool> there{false};
  {
    const ServedHttp http([&](const HttpRequest&) {
      ++asked;
      HttpResponse answer;
      answer.later = [&]() -> std::optional<HttpResponse> {
        if (!there) return std::nullopt;
        return text_answer("x");
      };
      return answer;
    });
    const std::string request = "GET /later HTTP/1.1\r\nHost: x\r\n\r\n";
    {
      const auto leaves = http.connect();
      kelp::test::send_text(leaves, request);
      while (asked < 1) std::this_thread::yield();
    }
    there = true;
    CHECK(has(http.get("/"), "x"));
    there = false;
    const auto stays = http.connect();
    kelp::test::send_text(stays, request);
    while (asked < 3) std::this_thread::yield();
  }
  CHECK(asked == 3);
}

TEST_CASE("a path below a prefix has the prefix's handler, and an exact one goes first") {
  kelp::HttpRoutes routes;
  routes.add_prefix("GET", "/volumes/", [](const HttpRequest& request) {
    return text_answer("below " + request.path);
  });
  routes.add("GET", "/volumes/all", [](const HttpRequest&) { return text_answer("all"); });
  CHECK(routes({"GET", "/volumes/3/needles", {}}).body == "below /volumes/3/needles");
  CHECK(routes({"GET", "/volumes/all", {}}).body == "all");
  CHECK(routes({"GET", "/volumes", {}}).status == 404);
  CHECK(routes({"POST", "/volumes/3", {}}).status == 405);
}

TEST_CASE("an error sentence of any bytes is valid JSON") {
  CHECK(kelp::http_error(400, "\xff\x01\"").body == "{\"error\":\"\xef\xbf\xbd\\u0001\\\"\"}\n");
}

TEST_CASE("a descriptor that is no socket is refused, and the caller's stays open") {
  CHECK_FALSE(kelp::HttpServer::create(-1, echo));
  const kelp::test::TempDir dir;
  const auto listener = kelp::UnixListener::create(dir / "s");
  REQUIRE(listener);
  { REQUIRE(kelp::HttpServer::create(listener->fd(), echo)); }
  CHECK(kelp::test::connect_to(dir / "s"));
}
