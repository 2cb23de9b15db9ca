#include "control/run_dir.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control/temp_dir.h"

using kelp::RunDir;
using kelp::test::TempDir;

namespace {

mode_t mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  return found.st_mode & 07777;
}

}  // namespace

TEST_CASE("a run directory is made, and open to the daemon's clients whatever the umask") {
  const TempDir dir;
  const mode_t before = ::umask(0077);
  const auto run = RunDir::claim(dir / "kelp");
  ::umask(before);
  REQUIRE(run);
  CHECK(mode_of(dir / "kelp") == 0755);
  CHECK(run->attach_socket() == dir / "kelp/attach.sock");
  CHECK(run->control_socket() == dir / "kelp/control.sock");
  CHECK(kelp::test::read_text(dir / "kelp/kelpd.lock") == std::to_string(::getpid()) + "\n");
}

TEST_CASE("a second daemon is told the first one's pid") {
  const TempDir dir;
  const auto first = RunDir::claim(dir.path());
  REQUIRE(first);
  const auto second = RunDir::claim(dir.path());
  REQUIRE_FALSE(second);
  CHECK(second.error().what == "another kelpd (pid " + std::to_string(::getpid()) + ") uses " +
                                   dir.path() + ": stop it or choose another --run-dir");
}

TEST_CASE("the directory is free again when its daemon is gone, even killed") {
  const TempDir dir;
  { REQUIRE(RunDir::claim(dir.path())); }
  const pid_t child = ::fork();
  if (child == 0) {
    const auto run = RunDir::claim(dir.path());
    ::kill(::getpid(), SIGKILL);
  }
  REQUIRE(::waitpid(child, nullptr, 0) == child);
  CHECK(RunDir::claim(dir.path()));
}

TEST_CASE("a lock file of nonsense is not quoted as a pid") {
  const TempDir dir;
  dir.write("kelpd.lock", "no pid\n");
  const auto first = RunDir::claim(dir.path());
  REQUIRE(first);
  dir.write("kelpd.lock", "\x1b[31m");
  CHECK(RunDir::claim(dir.path()).error().what.find("another kelpd uses ") == 0);
}

TEST_CASE("a place that cannot be a run directory is refused by name") {
  const TempDir dir;
  CHECK(RunDir::claim(dir / "no/such").error().what.find("its parent must exist") !=
        std::string::npos);
  CHECK(RunDir::claim(dir.write("file", "")).error().what.find("not a directory") !=
        std::string::npos);
  REQUIRE(::mkdir((dir / "open").c_str(), 0755) == 0);
  REQUIRE(::chmod((dir / "open").c_str(), 0777) == 0);
  CHECK(RunDir::claim(dir / "open").error().what.find("every user may write") != std::string::npos);
  REQUIRE(::chmod((dir / "open").c_str(), 01777) == 0);
  CHECK(RunDir::claim(dir / "open"));
  REQUIRE(::mkdir((dir / "trap").c_str(), 0755) == 0);
  REQUIRE(::symlink((dir / "file").c_str(), (dir / "trap/kelpd.lock").c_str()) == 0);
  CHECK_FALSE(RunDir::claim(dir / "trap"));
  CHECK(kelp::test::read_text(dir / "file").empty());
}

TEST_CASE("a directory of another user is refused, since that user could replace the sockets") {
  const TempDir dir;
  REQUIRE(::mkdir((dir / "theirs").c_str(), 0755) == 0);
  if (::chown((dir / "theirs").c_str(), 12345, 12345) != 0) {
    MESSAGE("skipped: needs root to make a directory of another user");
    return;
  }
  CHECK(RunDir::claim(dir / "theirs").error().what.find("belongs to uid 12345") !=
        std::string::npos);
}
