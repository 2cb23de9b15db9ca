#include "control/command_line.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <initializer_list>

using kelp::CommandLine;
using kelp::Result;

namespace {

Result<CommandLine> parse(std::initializer_list<const char*> flags) {
  std::vector<char*> argv{const_cast<char*>("kelpd")};
  for (const char* flag : flags) argv.push_back(const_cast<char*>(flag));
  argv.push_back(nullptr);
  return kelp::parse_command_line(static_cast<int>(argv.size()) - 1, argv.data());
}

}  // namespace

TEST_CASE("no flags say nothing") {
  const auto line = parse({});
  REQUIRE(line);
  CHECK_FALSE(line->answer);
  CHECK_FALSE(line->check);
  CHECK_FALSE(line->config_file);
  CHECK(line->volume_dirs.empty());
}

TEST_CASE("every flag arrives") {
  const auto line = parse({"--config",     "/c.toml",     "--check",
                           "--volume-dir", "/a",          "--volume-dir",
                           "/b",           "--idx-dir",   "/i",
                           "--run-dir",    "/r",          "--cpus",
                           "2-3",          "--log-level", "debug",
                           "--master",     "a:1",         "--master",
                           "b:2",          "--sidecar",   "127.0.0.1:8081"});
  REQUIRE(line);
  CHECK(line->check);
  CHECK(line->config_file == "/c.toml");
  CHECK(line->volume_dirs == std::vector<std::string>{"/a", "/b"});
  CHECK(line->idx_dir == "/i");
  CHECK(line->run_dir == "/r");
  CHECK(line->cpus == "2-3");
  CHECK(line->log_level == "debug");
  CHECK(line->masters == std::vector<std::string>{"a:1", "b:2"});
  CHECK(line->sidecar == "127.0.0.1:8081");
}

TEST_CASE("a relative directory is meant from where the caller stands") {
  const auto line = parse({"--volume-dir", "x/../data", "--run-dir", "."});
  REQUIRE(line);
  const std::string here = std::filesystem::current_path().string();
  CHECK(line->volume_dirs.at(0) == here + "/data");
  CHECK(line->run_dir->starts_with(here));
}

TEST_CASE("a volume server and its directories arrive, relative ones made absolute") {
  const auto line = parse({"--volume-server", "127.0.0.1:80=/a,b", "--volume-server", "[::1]:81=/c",
                           "--idx-dir", "/i"});
  REQUIRE(line);
  REQUIRE(line->volume_servers.size() == 2);
  CHECK(line->volume_servers[0].url == "127.0.0.1:80");
  const std::string here = std::filesystem::current_path().string();
  CHECK(line->volume_servers[0].dirs == std::vector<std::string>{"/a", here + "/b"});
  CHECK(line->volume_servers[1].url == "[::1]:81");
  CHECK(line->volume_servers[1].dirs == std::vector<std::string>{"/c"});
  for (const char* text : {"127.0.0.1:80", "127.0.0.1:80=", "127.0.0.1:80=/a,", "h:1=,/a"}) {
    CAPTURE(text);
    const auto bad = parse({"--volume-server", text});
    REQUIRE_FALSE(bad);
    CHECK(bad.error().what.find("names no directory") != std::string::npos);
  }
}

TEST_CASE("help and version are answers, not errors") {
  const auto help = parse({"--help"});
  REQUIRE(help);
  REQUIRE(help->answer);
  for (const char* flag :
       {"--config", "--check", "--volume-dir", "--volume-server", "--idx-dir", "--master",
        "--run-dir", "--cpus", "--log-level", "--sidecar", "--version"}) {
    CAPTURE(flag);
    CHECK(help->answer->find(flag) != std::string::npos);
  }
  const auto version = parse({"--version"});
  REQUIRE(version);
  CHECK(version->answer->starts_with("kelpd "));
}

TEST_CASE("a flag that makes no sense is an error that names it") {
  const auto unknown = parse({"--cpu", "1"});
  REQUIRE_FALSE(unknown);
  CHECK(unknown.error().what.find("--cpu") != std::string::npos);
  CHECK(unknown.error().what.find("--help") != std::string::npos);
  CHECK_FALSE(parse({"--config"}));
  CHECK_FALSE(parse({"--master"}));
  CHECK_FALSE(parse({"stray"}));
  CHECK_FALSE(parse({"--run-dir", "/a", "--run-dir", "/b"}));
  const auto lonely = parse({"--idx-dir", "/i"});
  REQUIRE_FALSE(lonely);
  CHECK(lonely.error().what.find("--volume-dir") != std::string::npos);
}
