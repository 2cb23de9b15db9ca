#include "control/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "control/temp_dir.h"

using kelp::LogLevel;
using kelp::test::TempDir;

namespace {

/// What `act` writes to stderr; nothing where stderr leads to `device` instead.
template <class Act>
std::string stderr_of(Act act, const char* device = nullptr) {
  const TempDir dir;
  const std::string file = dir / "err";
  const int target = ::open(device != nullptr ? device : file.c_str(), O_WRONLY | O_CREAT, 0600);
  const int saved = ::dup(STDERR_FILENO);
  ::dup2(target, STDERR_FILENO);
  act();
  ::dup2(saved, STDERR_FILENO);
  ::close(saved);
  ::close(target);
  return device != nullptr ? "" : kelp::test::read_text(file);
}

std::ptrdiff_t lines_in(const std::string& text) {
  return std::count(text.begin(), text.end(), '\n');
}

}  // namespace

TEST_CASE("a log line is time, level, message and fields") {
  const std::string text = stderr_of([] {
    kelp::log_warning("volume opened", {{"volume", "3"}, {"dir", "/d"}, {"why", ""}});
  });
  CHECK(text.starts_with("20"));
  CHECK(text.ends_with("Z warning volume opened volume=3 dir=/d why=\"\"\n"));
}

TEST_CASE("no value can pass for a line or a field of its own, and braces mean nothing") {
  const std::string text = stderr_of([] {
    kelp::log_info("{} %s", {{"k", "v x=1"}, {"n", "a\nerror forged"}, {"q", "\"\\\x1b"}});
  });
  CHECK(lines_in(text) == 1);
  CHECK(text.ends_with(" {} %s k=\"v x=1\" n=\"a\\x0aerror forged\" q=\"\\\"\\\\\\x1b\"\n"));
}

TEST_CASE("log lines below the level are dropped") {
  const std::string text = stderr_of([] {
    kelp::log_debug("dropped");
    kelp::set_log_level(LogLevel::kError);
    kelp::log_warning("dropped");
    kelp::log_error("kept");
    kelp::set_log_level(LogLevel::kDebug);
    kelp::log_debug("kept");
    kelp::set_log_level(LogLevel::kInfo);
  });
  CHECK(lines_in(text) == 2);
  CHECK(text.find("dropped") == std::string::npos);
}

TEST_CASE("log lines of several threads do not mix") {
  const std::string text = stderr_of([] {
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([] {
        for (int j = 0; j < 200; ++j) kelp::log_info("a line of some length", {{"n", "1"}});
      });
    }
    for (std::thread& thread : threads) thread.join();
  });
  CHECK(lines_in(text) == 800);
  for (std::size_t at = 0; at < text.size(); at = text.find('\n', at) + 1) {
    REQUIRE(text.compare(at, 2, "20") == 0);
    REQUIRE(text.substr(at, text.find('\n', at) - at).ends_with("a line of some length n=1"));
  }
}

TEST_CASE("a full disk behind stderr harms nobody") {
  stderr_of([] { kelp::log_info("lost"); }, "/dev/full");
  CHECK(lines_in(stderr_of([] { kelp::log_info("kept"); })) == 1);
}
