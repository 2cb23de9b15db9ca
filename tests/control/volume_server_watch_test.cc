#include "control/volume_server_watch.h"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <thread>

#include "control/http_server.h"
#include "shm_ring/unique_fd.h"

using kelp::Attestation;
using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::VolumeId;
using kelp::VolumeServerWatch;

namespace {

/// A socket of 127.0.0.1 that listens, and its port.
struct Listener {
  kelp::UniqueFd fd{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  std::uint16_t port = 0;

  Listener() {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
    REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    REQUIRE(::listen(fd.get(), 16) == 0);
    socklen_t length = sizeof address;
    REQUIRE(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
    port = ::ntohs(address.sin_port);
  }
  std::string url() const { return "127.0.0.1:" + std::to_string(port); }
};

/// A volume server that says what the test wants, one open volume, and the watch between them, all
/// driven from the test's thread.
struct Scene {
  Listener listener;
  int status_code = 200;
  std::string volumes = R"({"Id": 7, "Collection": "", "CompactRevision": 0, "Version": 3})";
  int token_code = 404;
  int statuses_asked = 0;
  std::function<void()> before_status = [] {};
  std::optional<kelp::HttpServer> server;
  std::shared_ptr<kelp::ServerPulse> pulse = std::make_shared<kelp::ServerPulse>();
  std::shared_ptr<Attestation> volume = std::make_shared<Attestation>(
      kelp::AttestedFacts{.key = {1, VolumeId{7}}, .collection = "", .version = 3}, pulse);
  std::unique_ptr<VolumeServerWatch> watch;

  Scene() {
    auto created = kelp::HttpServer::create(listener.fd.get(),
                                            [this](const HttpRequest& r) { return answer(r); });
    REQUIRE(created);
    server.emplace(std::move(*created));
    auto watching =
        VolumeServerWatch::create({{listener.url(), 1, pulse}}, [this](std::uint32_t n) {
          CHECK(n == 1);
          return std::vector{volume};
        });
    REQUIRE(watching);
    watch = std::move(*watching);
  }
  HttpResponse answer(const HttpRequest& request) {
    HttpResponse response;
    if (request.path == "/status") {
      ++statuses_asked;
      before_status();
      response.status = status_code;
      response.body = R"({"Version": "30GB 4.48", "Volumes": [)" + volumes + "]}";
    } else {
      response.status = token_code;
    }
    return response;
  }
  bool holds() const { return volume->holds(kelp::ticks_now()); }
  template <class Condition>
  bool until(Condition&& condition, bool serving = true) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition() && std::chrono::steady_clock::now() < end) {
      std::array<pollfd, 2> entries{pollfd{watch->epoll_fd(), POLLIN, 0},
                                    pollfd{serving ? server->epoll_fd() : -1, POLLIN, 0}};
      ::poll(entries.data(), entries.size(), 5);
      if (serving) server->run();
      watch->run();
    }
    return condition();
  }
};

}  // namespace

TEST_CASE(
    "a listed volume is attested once its files are watched, and the report says since when") {
  Scene scene;
  REQUIRE(scene.until([&] { return scene.watch->reports()[0].last_answer.has_value(); }));
  CHECK_FALSE(scene.holds());
  scene.volume->watched();
  CHECK(scene.watch->has_wishes());
  REQUIRE(scene.until([&] { return scene.holds(); }));
  REQUIRE(scene.watch->standing({1, VolumeId{7}}) != nullptr);
  CHECK(scene.watch->standing({1, VolumeId{7}})->attested);
  CHECK(scene.watch->standing({2, VolumeId{7}}) == nullptr);
  const kelp::VolumeServerReport report = scene.watch->reports()[0];
  CHECK(report.trusted);
  CHECK(report.version == "30GB 4.48");
  CHECK(report.listed == 1);
  CHECK_FALSE(report.failing_since);
}

TEST_CASE("a close while the server is being asked makes its answer void, and it is asked again") {
  Scene scene;
  scene.volume->watched();
  int asked = 0;
  scene.before_status = [&] {
    if (++asked == 1) scene.volume->closed();
  };
  REQUIRE(scene.until([&] { return scene.statuses_asked == 1; }));
  CHECK_FALSE(scene.holds());
  REQUIRE(scene.until([&] { return scene.holds(); }));
  CHECK(scene.statuses_asked >= 2);
}

TEST_CASE("a volume that the server lists no longer loses its word") {
  Scene scene;
  scene.volume->watched();
  REQUIRE(scene.until([&] { return scene.holds(); }));
  scene.volumes = "";
  REQUIRE(scene.until([&] { return !scene.holds(); }));
  const kelp::Standing* standing = scene.watch->standing({1, VolumeId{7}});
  REQUIRE(standing != nullptr);
  CHECK_FALSE(standing->attested);
  CHECK(standing->reason.find("does not list") != std::string::npos);
}

TEST_CASE("a server that answers 401 wants tokens, and the workers know before they serve") {
  Scene scene;
  scene.token_code = 401;
  scene.volume->watched();
  REQUIRE(scene.until([&] { return scene.holds(); }));
  CHECK(scene.pulse->wants_token);
  CHECK(scene.watch->reports()[0].wants_token);
  scene.token_code = 404;
  CHECK(scene.until([&] { return !scene.pulse->wants_token; }));
}

TEST_CASE("an error of the server is a failure with its reason, and no new trust") {
  Scene scene;
  scene.status_code = 500;
  scene.volume->watched();
  REQUIRE(scene.until([&] { return scene.watch->reports()[0].failing_since.has_value(); }));
  CHECK(scene.watch->reports()[0].failure.find("500") != std::string::npos);
  CHECK_FALSE(scene.holds());
  CHECK_FALSE(scene.watch->reports()[0].trusted);
  scene.status_code = 200;
  CHECK(scene.until([&] { return scene.holds(); }));
  CHECK_FALSE(scene.watch->reports()[0].failing_since);
}

TEST_CASE("a server that takes the connection and says nothing fails within the deadline") {
  Scene scene;
  scene.volume->watched();
  CHECK(scene.until([&] { return scene.watch->reports()[0].failing_since.has_value(); }, false));
  CHECK_FALSE(scene.watch->reports()[0].failure.empty());
}

TEST_CASE("a server that is not there is asked again and again") {
  Scene scene;
  scene.server.reset();
  scene.listener.fd.reset();
  REQUIRE(scene.until([&] { return scene.watch->reports()[0].failing_since.has_value(); }, false));
  REQUIRE(scene.watch->timeout().has_value());
  CHECK(*scene.watch->timeout() <= std::chrono::seconds(1));
}
