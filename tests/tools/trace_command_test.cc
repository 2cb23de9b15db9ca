#include "tools/trace_command.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/prctl.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "control/served_http.h"
#include "tools/run_kelpctl.h"
#include "tools/stand_in_kelp.h"

using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run;
using kelp::test::stand_in;
using kelp::test::StandIn;
using kelp::test::TempDir;
using nlohmann::json;

namespace {

constexpr const char* kFid = "3,01637037d6";
constexpr const char* kTrace = R"({"fid":"3,01637037d6","volume":3,"needle":"1",
  "cookie":"637037d6","local":{"state":"absent"},"remote":null,"paths":[
    {"path":"local","server":null,"usable":false,"why":"not on this host"},
    {"path":"http","server":"10.0.0.1:8080","usable":true,"why":""}],"resolving":false})";

/// Answers /trace in a process of its own: the test forks too, and must have no thread when it
/// does. The first `resolving` answers say that the gateway does not know yet.
class Tracer {
 public:
  explicit Tracer(std::string body, int status = 200, int resolving = 0) {
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    child_ = ::fork();
    if (child_ == 0) serve(ready[1], std::move(body), status, resolving);
    ::close(ready[1]);
    char path[256] = {};
    REQUIRE(::read(ready[0], path, sizeof path - 1) > 0);
    ::close(ready[0]);
    dir_ = path;
  }
  Tracer(const Tracer&) = delete;
  ~Tracer() {
    ::kill(child_, SIGKILL);
    kelp::test::wait_for(child_);
    std::error_code ignored;
    std::filesystem::remove_all(dir_, ignored);
  }

  Ran trace(std::vector<std::string> words = {kFid},
            const kelp::test::Streams& streams = {}) const {
    words.insert(words.begin(), "trace");
    words.insert(words.end(), {"--run-dir", dir_});
    return run(words, streams);
  }

 private:
  [[noreturn]] static void serve(int ready, std::string body, int status, int resolving) noexcept {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // it must not outlive a test that crashes
    const kelp::test::ServedHttp http(
        [&](const HttpRequest& request) {
          HttpResponse response;
          response.status = status;
          response.body =
              resolving-- > 0 ? R"({"resolving":true,"paths":[{"path":"none yet"}]})" : body;
          const auto fid = request.query.find("fid");
          const bool asked_well = request.path == "/trace" && request.query.size() == 1 &&
                                  fid != request.query.end() && fid->second == kFid;
          return asked_well ? response : kelp::http_error(404, "not what was asked for");
        },
        {}, "control.sock");
    (void)!::write(ready, http.dir().c_str(), http.dir().size());
    while (true) ::pause();
  }

  pid_t child_ = -1;
  std::string dir_;
};

void hold(std::string content) {
  stand_in() = StandIn{};
  stand_in().content = std::move(content);
  stand_in().path = KELP_PATH_HTTP;
}

}  // namespace

TEST_CASE("a trace shows the id, each path, and how the read went") {
  hold("hello");
  stand_in().attempts = 2;
  const Tracer daemon(kTrace);
  const Ran ran = daemon.trace();
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  CHECK(
      ran.out.starts_with("file id  3,01637037d6\nvolume   3\nneedle   1\ncookie   637037d6\n\n"
                          "PATH   SERVER         USABLE  WHY\n"
                          "local  -              no      not on this host\n"
                          "http   10.0.0.1:8080  yes\n\n"
                          "status            ok\nserved by         http\n"
                          "attempts          2\nbytes             5 B, checksum verified\n"
                          "attach            "));
  for (const char* stage : {"attach ", "resolve ", "submit to answer "}) {
    CHECK(contains(ran.out, stage));
  }
  CHECK_FALSE(contains(ran.out, "hello"));
}

TEST_CASE("any form of a file id is asked for in its canonical one") {
  hold("hello");
  const Tracer daemon(kTrace);
  CHECK(daemon.trace({"/3,01637037d6&x=1.jpg"}).code == 0);
}

TEST_CASE("of a large needle the first 4 MiB are read, and it is said that there is more") {
  hold(std::string(5u << 20, 'x'));
  stand_in().after_read = [](StandIn& self) { std::fprintf(stderr, "read %d", self.reads); };
  const Tracer daemon(kTrace);
  const Ran ran = daemon.trace();
  CHECK(ran.code == 0);
  CHECK(contains(ran.out, "bytes             4.0 MiB of 5.0 MiB\n"));
  CHECK(ran.err == "read 1");
}

TEST_CASE("while the volume's place is not known the daemon is asked again") {
  hold("hello");
  {
    const Tracer daemon(kTrace, 200, 1);
    const Ran ran = daemon.trace();
    CHECK(ran.code == 0);
    CHECK(contains(ran.out, "10.0.0.1:8080"));
  }
  // But not for ever: then the read finds out.
  const Tracer daemon(kTrace, 200, 1'000'000);
  const auto began = std::chrono::steady_clock::now();
  const Ran ran = daemon.trace();
  CHECK(std::chrono::steady_clock::now() - began >= std::chrono::seconds(2));
  CHECK(ran.code == 0);
  CHECK(contains(ran.out, "none yet"));
  CHECK(contains(ran.out, "served by         http"));
}

TEST_CASE("with --json one object has the daemon's answer, the read and the times") {
  hold("hello");
  const Tracer daemon(kTrace);
  const Ran ran = daemon.trace({kFid, "--json"});
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  const json about = json::parse(ran.out);
  CHECK(about["trace"] == json::parse(kTrace));
  CHECK(about["read"] ==
        json::parse(R"({"status":"ok","path":"http","attempts":1,"bytes":5,"total":5,
                        "truncated":false,"crc_verified":true,"inflated":false})"));
  for (const char* stage : {"attach", "resolve", "read"}) {
    CHECK(about["stages_us"][stage].get<double>() > 0);
  }
}

TEST_CASE("a read that fails is told on stdout, and is the exit code as of read") {
  const Tracer daemon(kTrace);
  for (const auto& [status, code] :
       {std::pair{KELP_NOT_FOUND, 3}, std::pair{KELP_WRONG_COOKIE, 4}, std::pair{KELP_USE_HTTP, 7},
        std::pair{KELP_UNAVAILABLE, 8}, std::pair{KELP_DEADLINE, 9},
        std::pair{KELP_DISCONNECTED, 13}}) {
    CAPTURE(status);
    hold("hello");
    stand_in().status = static_cast<std::uint8_t>(status);
    const Ran ran = daemon.trace();
    CHECK(ran.code == code);
    CHECK(contains(ran.out, "10.0.0.1:8080"));
    CHECK(contains(ran.out, "attempts          1\n"));
    CHECK_FALSE(contains(ran.out, "bytes "));
    CHECK(contains(ran.err, kFid));
  }
  hold("hello");
  stand_in().status = KELP_NOT_FOUND;
  const Ran ran = daemon.trace({kFid, "--json"});
  CHECK(ran.code == 3);
  CHECK(json::parse(ran.out)["read"]["status"] == "not-found");
  CHECK(json::parse(ran.err)["status"] == "not-found");
}

TEST_CASE("where nobody is let in the paths are shown all the same") {
  hold("hello");
  stand_in().connect = KELP_REFUSED;
  const Tracer daemon(kTrace);
  const Ran ran = daemon.trace();
  CHECK(ran.code == 13);
  CHECK(contains(ran.out, "10.0.0.1:8080"));
  CHECK(contains(ran.out, "attach            -\n"));
  CHECK(contains(ran.err, "cannot connect"));
  const json about = json::parse(daemon.trace({kFid, "--json"}).out);
  CHECK(about["read"].is_null());
  CHECK(about["stages_us"]["attach"].is_null());
}

TEST_CASE("a daemon that has no traces, or answers nonsense, is an error") {
  hold("hello");
  const Tracer older(R"({"error":"there is nothing at /trace"})", 404);
  const Ran ran = older.trace();
  CHECK(ran.code == 1);
  CHECK(ran.out.empty());
  CHECK(contains(ran.err, "HTTP 404: there is nothing at /trace"));
  const Tracer garbled("<html>");
  CHECK(contains(garbled.trace().err, "is not JSON"));
  const TempDir nobody;
  CHECK(run({"trace", kFid, "--run-dir", nobody.path()}).code == 13);
}

TEST_CASE("a trace into a full disk fails as output does") {
  hold("hello");
  const Tracer daemon(kTrace);
  CHECK(daemon.trace({kFid}, {.out_path = "/dev/full"}).code == 14);
}

TEST_CASE("a trace of odd shapes is shown as far as it goes") {
  for (const char* text : {"{}", "[]", "7", "null", R"({"paths":7})", R"({"paths":[]})",
                           R"({"paths":[7,null,[],{}],"fid":7})",
                           R"({"paths":[{"path":"\u001b[2J","why":"\u001b","usable":"\u001b"}],
                               "fid":"\u001b","needle":[1,{"a":2}]})"}) {
    CAPTURE(text);
    const std::string shown = kelp::view_trace(json::parse(text), false);
    CHECK(shown.starts_with("file id"));
    CHECK_FALSE(contains(shown, "\x1b"));
  }
}
