#include "control/log.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "control/log_limiter.h"
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

TEST_CASE("as JSON a log line is one object, whatever the values hold") {
  const std::string text = stderr_of([] {
    kelp::set_log_format(kelp::LogFormat::kJson);
    kelp::log_warning("volume \"3\"", {{"dir", "a\nb"}, {"odd", "\xff"}});
    kelp::set_log_format(kelp::LogFormat::kText);
    kelp::log_info("as before");
  });
  REQUIRE(lines_in(text) == 2);
  const auto line = nlohmann::json::parse(text.substr(0, text.find('\n')));
  CHECK(line["level"] == "warning");
  CHECK(line["message"] == "volume \"3\"");
  CHECK(line["dir"] == "a\nb");
  CHECK(line["odd"] == "\xef\xbf\xbd");
  CHECK(line["time"].get<std::string>().ends_with("Z"));
  CHECK(text.ends_with("Z info    as before\n"));
}

TEST_CASE("a limiter lets a burst through, then so many a second, and counts the rest") {
  kelp::LogLimiter limiter("test", LogLevel::kInfo, 3, 2);
  const kelp::LogLimiter::Clock::time_point start{std::chrono::hours(1)};
  const auto lines = [&](std::chrono::milliseconds after) {
    int allowed = 0;
    for (int i = 0; i < 10; ++i) allowed += limiter.allow(start + after) ? 1 : 0;
    return allowed;
  };
  CHECK(lines(std::chrono::milliseconds(0)) == 3);
  CHECK(lines(std::chrono::milliseconds(400)) == 0);
  CHECK(lines(std::chrono::milliseconds(1000)) == 2);
  CHECK(limiter.take_suppressed() == 25);
  CHECK(limiter.take_suppressed() == 0);
  CHECK(lines(std::chrono::hours(1)) == 3);
}

TEST_CASE("lines that were left out are told by kind, once, and only where there are some") {
  kelp::LogLimiter limiter("bad request", LogLevel::kInfo, 1, 0);
  const std::string text = stderr_of([&] {
    kelp::log_suppressed();
    for (int i = 0; i < 3; ++i) limiter.allow();
    kelp::log_suppressed();
    kelp::log_suppressed();
  });
  CHECK(text.ends_with("log lines were left out event=\"bad request\" count=2\n"));
  CHECK(lines_in(text) == 1);
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
