#include "tools/kelpctl.h"

#include <doctest/doctest.h>

#include <numeric>

#include "tools/exit_code.h"
#include "tools/run_kelpctl.h"
#include "tools/stand_in_kelp.h"

using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run;
using kelp::test::stand_in;
using kelp::test::StandIn;

TEST_CASE("help names the commands and every exit code") {
  const Ran ran = run({"--help"});
  CHECK(ran.code == 0);
  CHECK(ran.err.empty());
  for (const char* command :
       {"read", "stat", "trace", "health", "stats", "loadgen", "volumes", "clients", "peers",
        "config", "doctor", "reload", "disable", "enable", "drain"}) {
    CAPTURE(command);
    CHECK(contains(ran.out, command));
  }
  CHECK(contains(ran.out, kelp::kExitCodeHelp));
  const std::string docs = kelp::test::read_text(KELP_SOURCE_DIR "/docs/kelpctl.md");
  std::vector<int> codes(15);
  std::iota(codes.begin(), codes.end(), 0);
  codes.push_back(20);
  for (const int code : codes) {
    CAPTURE(code);
    CHECK(contains(ran.out, std::to_string(code) + "  "));
    CHECK(contains(docs, "| " + std::to_string(code) + " |"));
  }
}

TEST_CASE("each command has help of its own") {
  const Ran ran = run({"read", "--help"});
  CHECK(ran.code == 0);
  for (const char* option : {"--offset", "--size", "--output", "--timeout"}) {
    CHECK(contains(ran.out, option));
  }
  CHECK(contains(run({"health", "--help"}).out, "degraded"));
  CHECK(contains(run({"trace", "--help"}).out, "--timeout"));
  const Ran load = run({"loadgen", "--help"});
  for (const char* option : {"--fids", "--depth", "--size", "--duration", "--count", "--timeout"}) {
    CHECK(contains(load.out, option));
  }
  CHECK(contains(run({"peers", "--help"}).out, "Role gateway"));
}

TEST_CASE("version is one line") {
  CHECK(run({"--version"}).out == "kelpctl 0.1.0\n");
}

TEST_CASE("a command line that makes no sense exits with 2") {
  stand_in() = StandIn{};
  const std::vector<std::vector<std::string>> senseless = {
      {},
      {"raed", "3,01637037d6"},
      {"read"},
      {"read", "nonsense"},
      {"read", "3,01637037d6", "3,01637037d6"},
      {"read", "3,01637037d6", "--bogus"},
      {"read", "3,01637037d6", "--size", "0"},
      {"read", "3,01637037d6", "--size", "-1"},
      {"read", "3,01637037d6", "--size", "x"},
      {"read", "3,01637037d6", "--offset", "99999999999999999999999"},
      {"read", "3,01637037d6", "--timeout", "0"},
      {"read", "3,01637037d6", "--timeout", "3600001"},
      {"trace"},
      {"trace", "nonsense"},
      {"trace", "3,01637037d6", "--timeout", "0"},
      {"trace", "3,01637037d6", "--offset", "1"},
      {"loadgen"},
      {"loadgen", "nonsense"},
      {"loadgen", "3,01637037d6", "nonsense"},
      {"loadgen", "3,01637037d6", "--fids", "-"},
      {"loadgen", "--fids"},
      {"loadgen", "--fids", "/nowhere/fids"},
      {"loadgen", "3,01637037d6", "--depth", "0"},
      {"loadgen", "3,01637037d6", "--size", "-1"},
      {"loadgen", "3,01637037d6", "--duration", "0"},
      {"loadgen", "3,01637037d6", "--duration", "601"},
      {"loadgen", "3,01637037d6", "--count", "0"},
      {"loadgen", "3,01637037d6", "--timeout", "x"},
      {"health", "stray"},
      {"peers", "stray"},
      {"stats", "--watch", "0"},
      {"stats", "--watch", "3601"},
      {"stats", "--watch", "x"},
      {"drain", "now"},
      {"health", "--run-dir", "/" + std::string(200, 'x')},
  };
  for (const auto& words : senseless) {
    const Ran ran = run(words);
    CAPTURE(ran.err);
    CHECK(ran.code == 2);
    CHECK(ran.out.empty());
    CHECK(ran.err.starts_with("kelpctl: "));
  }
}

TEST_CASE("a word that is no command is named, and it is said where there are some") {
  for (const std::string word : {"bogus", "--bogus"}) {
    const Ran ran = run({word});
    CHECK(ran.code == 2);
    CHECK(contains(ran.err, "no command or option " + word));
    CHECK(contains(ran.err, "--help"));
  }
  CHECK(contains(run({}).err, "subcommand is required"));
}

TEST_CASE("help into a full disk fails as output does") {
  CHECK(run({"--help"}, {.out_path = "/dev/full"}).code == 14);
}

TEST_CASE("libkelp chooses the daemon unless --run-dir does") {
  stand_in() = StandIn{};
  // Seen through the error: the stand-in lives in the child.
  stand_in().after_read = [](StandIn& self) { std::fputs(self.run_dir.c_str(), stderr); };
  CHECK(run({"read", "3,0"}).err == "(default)");
  CHECK(run({"read", "3,0", "--run-dir", "/x"}).err == "/x");
  CHECK(run({"--run-dir", "/x", "read", "3,0"}).err == "/x");
  CHECK(run({"--run-dir", "/x", "read", "--size", "5", "--", "3,0"}).err == "/x");
}
