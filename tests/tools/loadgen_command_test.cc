#include "tools/loadgen_command.h"

#include <doctest/doctest.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "control/served_http.h"
#include "shm_ring/unique_fd.h"
#include "tools/run_kelpctl.h"

using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::UniqueFd;
using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run_program;
using kelp::test::start_program;
using kelp::test::TempDir;
using nlohmann::json;
using Words = std::vector<std::string>;

namespace {

constexpr const char* kFid = "3,01637037d6";

/// A load that is done, of 1000 requests.
json done_report() {
  return json::parse(R"({"state":"done","requests":1000,"bytes":4096000,"statuses":{"ok":1000},
    "paths":{"local":1000},"seconds":2.5,"requests_per_s":400.0,"bytes_per_s":1638400.0,
    "worker_cpu_s":0.5,"latency_us":{"p50":12.25,"p90":20.0,"p99":33.5,"p999":40.125,
    "max":1234.5}})");
}

json running_report(int requests) {
  return {{"state", "running"},
          {"requests", requests},
          {"bytes", 0},
          {"statuses", json::object()},
          {"paths", json::object()}};
}

/// A control socket whose load is over after so many looks at it, or when it is stopped.
class FakeLoad {
 public:
  FakeLoad() = default;

  int looks_until_done = 2;
  bool stops = true;                             ///< POST /loadgen/stop ends it soon
  json done = done_report();                     ///< what it ends with
  HttpResponse started = ok(running_report(0));  ///< what answers POST /loadgen

  Ran run(Words words = {kFid}, const kelp::test::Streams& streams = {}) {
    return run_program(command(std::move(words)), streams);
  }
  Words command(Words words) const {
    words.insert(words.begin(), "loadgen");
    words.insert(words.end(), {"--run-dir", http_.dir()});
    return words;
  }

  /// The last POST /loadgen.
  std::map<std::string, std::string> asked() {
    const std::lock_guard lock(mutex_);
    return query_;
  }
  /// "METHOD path" of every request.
  Words requests() {
    const std::lock_guard lock(mutex_);
    return requests_;
  }

 private:
  static HttpResponse ok(const json& body) {
    HttpResponse response;
    response.body = body.dump() + "\n";
    return response;
  }

  HttpResponse answer(const HttpRequest& request) {
    const std::lock_guard lock(mutex_);
    requests_.push_back(request.method + " " + request.path);
    if (requests_.back() == "POST /loadgen") {
      query_ = request.query;
      return started;
    }
    if (requests_.back() == "POST /loadgen/stop") {
      if (stops) looks_until_done = 1;  // what is in flight
      return ok(running_report(7));
    }
    if (requests_.back() != "GET /loadgen") return kelp::http_error(404, "not what was expected");
    return ok(looks_until_done-- > 0 ? running_report(10 * ++looks_) : done);
  }

  std::mutex mutex_;
  int looks_ = 0;
  Words requests_;
  std::map<std::string, std::string> query_;
  // Last: its thread ends before the rest.
  kelp::test::ServedHttp http_{
      [this](const HttpRequest& request) { return answer(request); }, {}, "control.sock"};
};

/// Runs it until `count` requests have come, sends the signals with time between them, and waits.
Ran run_and_interrupt(FakeLoad& daemon, const std::vector<int>& signals) {
  const TempDir dir;
  const pid_t child = start_program(daemon.command({kFid}), dir / "out", dir / "err");
  for (const int signal : signals) {
    const std::size_t seen = daemon.requests().size();
    for (int ms = 0; ms < 30'000 && daemon.requests().size() < seen + 3; ++ms) ::usleep(1000);
    ::kill(child, signal);
  }
  const int code = kelp::test::wait_for(child);
  return {code, kelp::test::read_text(dir / "out"), kelp::test::read_text(dir / "err")};
}

bool asked_for(FakeLoad& daemon, const std::string& request) {
  const Words requests = daemon.requests();
  return std::ranges::find(requests, request) != requests.end();
}

std::string lines_of(int count, const std::string& fid) {
  std::string text;
  for (int i = 0; i < count; ++i) text += fid + "\n";
  return text;
}

}  // namespace

TEST_CASE("a load is started, looked at until it is done, and shown") {
  FakeLoad daemon;
  const Ran ran = daemon.run();
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  CHECK(ran.out ==
        "requests        1000\nseconds         2.500\nrequests/s      400\n"
        "bytes/s         1.6 MiB\nlatency p50     12.25 us\nlatency p90     20.00 us\n"
        "latency p99     33.50 us\nlatency p99.9   40.12 us\nlatency max     1234.50 us\n"
        "CPU of workers  0.500 s\nrequests/CPU s  2000\npath            1000 local\n");
  CHECK(daemon.requests() ==
        Words{"POST /loadgen", "GET /loadgen", "GET /loadgen", "GET /loadgen"});
  CHECK(daemon.asked() == std::map<std::string, std::string>{{"fids", kFid},
                                                             {"depth", "1"},
                                                             {"size", "1048576"},
                                                             {"ms", "10000"},
                                                             {"timeout_ms", "5000"}});
}

TEST_CASE("a load that is over at once is not looked at again") {
  FakeLoad daemon;
  daemon.started.body = done_report().dump();
  CHECK(daemon.run().code == 0);
  CHECK(daemon.requests() == Words{"POST /loadgen"});
}

TEST_CASE("options and any form of a file id arrive as the daemon takes them") {
  FakeLoad daemon;
  CHECK(daemon
            .run({"/3,01637037d6&x=1.jpg", "4/0000aa00000001", "--depth", "16", "--size", "4096",
                  "--duration", "600", "--count", "18446744073709551615", "--timeout", "250"})
            .code == 2);
  CHECK(daemon
            .run({"/3,01637037d6.jpg", "4/0000aa00000001", "--depth", "16", "--size", "4096",
                  "--duration", "600", "--count", "18446744073709551615", "--timeout", "250"})
            .code == 0);
  CHECK(daemon.asked() == std::map<std::string, std::string>{{"fids", "3,01637037d6;4,aa00000001"},
                                                             {"depth", "16"},
                                                             {"size", "4096"},
                                                             {"ms", "600000"},
                                                             {"count", "18446744073709551615"},
                                                             {"timeout_ms", "250"}});
}

TEST_CASE("file ids come from a file, one per line") {
  FakeLoad daemon;
  const TempDir dir;
  const std::string file = dir.write("fids", "# mine\n3,01637037d6\r\n\n4,0aa00000001\n");
  CHECK(daemon.run({"--fids", file}).code == 0);
  CHECK(daemon.asked()["fids"] == "3,01637037d6;4,aa00000001");
  const Ran bad = daemon.run({"--fids", dir.write("bad", "3,01637037d6\n\nnonsense\x1b\n")});
  CHECK(bad.code == 2);
  CHECK(contains(bad.err, "/bad, line 3: \"nonsense\\x1b\" is not a file id"));
  const Ran none = daemon.run({"--fids", dir.write("none", "#\n")});
  CHECK(none.code == 2);
  CHECK(contains(none.err, "/none names no file ids"));
  const Ran missing = daemon.run({"--fids", dir / "missing"});
  CHECK(missing.code == 2);
  CHECK(contains(missing.err, "/missing: No such file or directory"));
  CHECK(contains(daemon.run({"--fids", dir.path()}).err, "cannot read " + dir.path()));
}

TEST_CASE("of more file ids than a load takes the first are taken, and that is said") {
  const TempDir dir;
  FakeLoad daemon;
  const Ran ran = daemon.run({"--fids", dir.write("many", lines_of(700, kFid) + "nonsense\n")});
  CHECK(ran.code == 0);
  CHECK(ran.err == "kelpctl: 701 file ids are too many for one load: the first 512 are taken\n");
  CHECK(std::ranges::count(daemon.asked()["fids"], ';') == 511);
  CHECK(daemon.run({"--fids", dir.write("most", lines_of(512, kFid))}).err.empty());
  // The longest there are: what is asked for must still fit the daemon's bounds.
  const std::string longest = "4294967295,ffffffffffffffffffffffff";
  const Ran wide = daemon.run({"--fids", dir.write("wide", lines_of(512, longest)), "--count",
                               "18446744073709551615", "--size", "67108864"});
  CHECK(wide.code == 0);
  CHECK(contains(wide.err, "512 file ids are too many for one load: the first 398 are taken"));
  CHECK(std::ranges::count(daemon.asked()["fids"], ';') == 397);
}

TEST_CASE("with --json stdout has the daemon's document as it came") {
  FakeLoad daemon;
  const Ran ran = daemon.run({kFid, "--json"});
  CHECK(ran.code == 0);
  CHECK(ran.out == done_report().dump() + "\n");
}

TEST_CASE("requests that were not ok are shown by status, and are the exit code 20") {
  FakeLoad daemon;
  daemon.done["statuses"] = {{"ok", 900}, {"not-found", 99}, {"deadline", 1}};
  const Ran ran = daemon.run();
  CHECK(ran.code == 20);
  CHECK(contains(ran.out, "not ok          1 deadline\nnot ok          99 not-found\n"));
  CHECK(ran.err.empty());
  daemon.looks_until_done = 1;
  const Ran as_json = daemon.run({kFid, "--json"});
  CHECK(as_json.code == 20);
  CHECK(json::parse(as_json.out)["statuses"]["deadline"] == 1);
  CHECK(as_json.err.empty());
}

TEST_CASE("SIGINT and SIGTERM stop the load, and what there is is shown") {
  for (const int signal : {SIGINT, SIGTERM}) {
    FakeLoad daemon;
    daemon.looks_until_done = 1'000'000;
    const Ran ran = run_and_interrupt(daemon, {signal});
    CHECK(ran.code == 0);
    CHECK(ran.err.empty());
    CHECK(contains(ran.out, "requests        1000\n"));
    CHECK(asked_for(daemon, "POST /loadgen/stop"));
  }
}

TEST_CASE("a second signal does not wait for what is in flight") {
  FakeLoad daemon;
  daemon.looks_until_done = 1'000'000;
  daemon.stops = false;
  const Ran ran = run_and_interrupt(daemon, {SIGINT, SIGINT});
  CHECK(ran.code == 0);
  CHECK(ran.out.starts_with("state           running\nrequests  "));
  CHECK(contains(ran.out, "seconds         -\n"));
  CHECK(contains(ran.out, "requests/CPU s  -\n"));
}

TEST_CASE("what the daemon refuses comes out as its sentence") {
  for (const auto& [status, code] : {std::pair{400, 2}, std::pair{409, 1}, std::pair{503, 1}}) {
    FakeLoad daemon;
    daemon.started = kelp::http_error(status, "the sentence\x1b");
    const Ran ran = daemon.run();
    CHECK(ran.code == code);
    CHECK(ran.out.empty());
    CHECK(ran.err == "kelpctl: the sentence\\x1b\n");
    CHECK(daemon.requests() == Words{"POST /loadgen"});
  }
  FakeLoad older;
  older.started = kelp::http_error(404, "there is nothing at /loadgen");
  const Ran ran = older.run();
  CHECK(ran.code == 1);
  CHECK(ran.err == "kelpctl: kelpd answers /loadgen with HTTP 404: there is nothing at /loadgen\n");
  older.started.body = "<html>";
  CHECK(contains(older.run().err, "is not JSON (HTTP 404)"));
}

TEST_CASE("a daemon that is not there, or is started anew meanwhile, is the exit code 13") {
  const TempDir nobody;
  CHECK(run_program({"loadgen", kFid, "--run-dir", nobody.path()}).code == 13);
  FakeLoad daemon;
  daemon.done = running_report(0);
  daemon.done["state"] = "idle";
  const Ran ran = daemon.run();
  CHECK(ran.code == 13);
  CHECK(contains(ran.err, "started anew"));
}

TEST_CASE("a load nobody can look at any longer is stopped") {
  FakeLoad daemon;
  daemon.done = "no object";
  CHECK(daemon.run().code == 1);
  CHECK(daemon.requests().back() == "POST /loadgen/stop");
}

TEST_CASE("progress is shown where stderr is a terminal, and gone at the end") {
  const UniqueFd terminal(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  REQUIRE(terminal);
  REQUIRE(::grantpt(terminal.get()) == 0);
  REQUIRE(::unlockpt(terminal.get()) == 0);
  // Held open: what was written stays readable when the program has ended.
  const UniqueFd other_end(::open(::ptsname(terminal.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
  FakeLoad daemon;
  CHECK(daemon.run({kFid}, {.err_path = ::ptsname(terminal.get())}).code == 0);
  // What was written comes in pieces, a moment later.
  std::string shown;
  pollfd ready{terminal.get(), POLLIN, 0};
  while (!shown.ends_with(" s\r\x1b[K") && ::poll(&ready, 1, 5000) == 1) {
    char piece[4096];
    const ssize_t got = ::read(terminal.get(), piece, sizeof piece);
    REQUIRE(got > 0);
    shown.append(piece, static_cast<std::size_t>(got));
  }
  CHECK(contains(shown, "\r\x1b[K10 requests, "));
  CHECK(contains(shown, "\r\x1b[K20 requests, "));
  CHECK(shown.ends_with(" s\r\x1b[K"));
}

TEST_CASE("a load into a full disk fails as output does") {
  FakeLoad daemon;
  CHECK(daemon.run({kFid}, {.out_path = "/dev/full"}).code == 14);
}

TEST_CASE("what failed is red") {
  json report = done_report();
  CHECK_FALSE(contains(kelp::view_loadgen(report, true), "\x1b[31m"));
  report["statuses"]["corrupt"] = 3;
  CHECK(contains(kelp::view_loadgen(report, true), "\x1b[31m3 corrupt\x1b[0m\n"));
}

TEST_CASE("a report of odd shapes is shown as far as it goes") {
  for (const char* text :
       {"{}", "[]", "7", "null", R"({"state":7,"requests":"\u001b","seconds":[],"bytes_per_s":-1})",
        R"({"bytes_per_s":1e300,"requests_per_s":1e300,"worker_cpu_s":0,"requests":-1})",
        R"({"statuses":7,"paths":[],"latency_us":{"p50":"\u001b","max":null}})",
        R"({"statuses":{"\u001b[2J":"\u001b","x":null},"paths":{"\u001b":{"\u001b":1}}})"}) {
    CAPTURE(text);
    const std::string shown = kelp::view_loadgen(json::parse(text), false);
    CHECK(contains(shown, "requests"));
    CHECK_FALSE(contains(shown, "\x1b"));
  }
}
