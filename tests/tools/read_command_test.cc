#include <doctest/doctest.h>
#include <signal.h>
#include <sys/stat.h>

#include "tools/run_kelpctl.h"
#include "tools/stand_in_kelp.h"

using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::read_text;
using kelp::test::run;
using kelp::test::stand_in;
using kelp::test::StandIn;
using kelp::test::TempDir;

namespace {

constexpr const char* kFid = "3,01637037d6";
constexpr std::size_t kChunk = 4u << 20;

/// Bytes that differ everywhere, NUL included.
std::string bytes_of(std::size_t count) {
  std::string bytes(count, '\0');
  for (std::size_t i = 0; i < count; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 13);
  return bytes;
}

void hold(std::string content) {
  stand_in() = StandIn{};
  stand_in().content = std::move(content);
}

std::size_t files_in(const std::string& dir) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(dir), {}));
}

}  // namespace

TEST_CASE("read writes the bytes and nothing else") {
  for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{5000}, kChunk}) {
    CAPTURE(count);
    hold(bytes_of(count));
    const Ran ran = run({"read", kFid});
    CHECK(ran.code == 0);
    CHECK((ran.out == stand_in().content));
    CHECK(ran.err.empty());
  }
}

TEST_CASE("a token and a volume server go with a read that is given them") {
  hold(bytes_of(10));
  stand_in().wanted_token = "abc";
  stand_in().wanted_server = "10.0.0.1:8080";
  CHECK(run({"read", kFid}).code != 0);
  CHECK(run({"read", "--token", "abc", kFid}).code != 0);
  CHECK(run({"read", "--token", "abc", "--volume-server", "10.0.0.1:8080", kFid}).code == 0);
}

TEST_CASE("a needle of many chunks arrives whole") {
  for (const std::size_t count : {kChunk + 1, 3 * kChunk, 2 * kChunk + 77}) {
    CAPTURE(count);
    hold(bytes_of(count));
    const Ran ran = run({"read", kFid});
    CHECK(ran.code == 0);
    CHECK((ran.out == stand_in().content));
  }
}

TEST_CASE("offset and size choose a range, across chunks too") {
  hold(bytes_of(2 * kChunk + 77));
  const std::string& all = stand_in().content;
  CHECK((run({"read", kFid, "--offset", "10", "--size", "5"}).out == all.substr(10, 5)));
  CHECK(
      (run({"read", kFid, "--offset", "10", "--size", "5000000"}).out == all.substr(10, 5000000)));
  CHECK((run({"read", kFid, "--offset", "10"}).out == all.substr(10)));
  CHECK((run({"read", kFid, "--size", "999999999999"}).out == all));
  const Ran end = run({"read", kFid, "--offset", std::to_string(all.size())});
  CHECK(end.code == 0);
  CHECK(end.out.empty());
  CHECK(run({"read", kFid, "--offset", "99999999999"}).code == 11);
}

TEST_CASE("a needle that is overwritten between two chunks is an error") {
  hold(bytes_of(3 * kChunk));
  stand_in().after_read = [](StandIn& self) {
    if (self.reads == 3) self.content.resize(2 * kChunk + 5), self.crc32c = 1;
  };
  const Ran shorter = run({"read", kFid});
  CHECK(shorter.code == 1);
  CHECK(contains(shorter.err, "overwritten while it was read"));

  // The same size, another content: only the look at the end can tell. So can it when the change
  // comes after the very first read.
  for (const int when : {2, 3}) {
    hold(bytes_of(3 * kChunk));
    stand_in().after_read = [when](StandIn& self) {
      if (self.reads == when) self.crc32c = 1;
    };
    CHECK(run({"read", kFid}).code == 1);
  }
}

TEST_CASE("each status has its exit code") {
  const std::pair<kelp_status, int> codes[] = {
      {KELP_NOT_FOUND, 3}, {KELP_WRONG_COOKIE, 4}, {KELP_EXPIRED, 5},       {KELP_CORRUPT, 6},
      {KELP_USE_HTTP, 7},  {KELP_UNAVAILABLE, 8},  {KELP_DEADLINE, 9},      {KELP_BROKEN_GZIP, 10},
      {KELP_RANGE, 11},    {KELP_DENIED, 12},      {KELP_DISCONNECTED, 13}, {KELP_INVALID, 2},
      {KELP_RING_FULL, 1}};
  for (const auto& [status, code] : codes) {
    CAPTURE(status);
    hold("x");
    stand_in().status = status;
    const Ran ran = run({"read", kFid});
    CHECK(ran.code == code);
    CHECK(ran.out.empty());
    CHECK(contains(ran.err, kFid));
  }
  hold("x");
  for (const kelp_status status : {KELP_DISCONNECTED, KELP_REFUSED, KELP_VERSION}) {
    stand_in().connect = status;
    CHECK(run({"read", kFid}).code == 13);
  }
  CHECK(contains(run({"read", kFid}).err, "kelpctl: cannot connect: the detail"));
}

TEST_CASE("with --json errors are JSON, and so is the report of a read") {
  hold("hello");
  const Ran fine = run({"read", kFid, "--json"});
  CHECK(fine.out == "hello");
  CHECK(contains(fine.err, "\"bytes\":5"));
  CHECK(contains(fine.err, "\"path\":\"local\""));
  CHECK(contains(fine.err, "\"crc_verified\":true"));
  stand_in().status = KELP_NOT_FOUND;
  const Ran missing = run({"--json", "read", kFid});
  CHECK(missing.code == 3);
  CHECK(contains(missing.err, "\"exit_code\":3"));
  CHECK(contains(missing.err, "\"status\":\"not-found\""));
}

TEST_CASE("a file appears whole, with the permissions of the one it replaces") {
  const TempDir dir;
  hold(bytes_of(kChunk + 9));
  const std::string path = dir / "f";
  CHECK(run({"read", kFid, "-o", path}).code == 0);
  CHECK((read_text(path) == stand_in().content));
  REQUIRE(::chmod(path.c_str(), 0604) == 0);
  hold("second");
  CHECK(run({"read", kFid, "--output", path}).code == 0);
  CHECK(read_text(path) == "second");
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0604);
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("a read that fails leaves the old file and nothing else") {
  const TempDir dir;
  hold(bytes_of(3 * kChunk));
  dir.write("f", "old");
  stand_in().after_read = [](StandIn& self) {
    if (self.reads == 2) self.status = KELP_UNAVAILABLE;
  };
  CHECK(run({"read", kFid, "-o", dir / "f"}).code == 8);
  CHECK(run({"read", kFid, "-o", dir / "new"}).code == 8);
  CHECK(read_text(dir / "f") == "old");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("a read that is killed leaves nothing") {
  const TempDir dir;
  hold(bytes_of(3 * kChunk));
  stand_in().after_read = [](StandIn& self) {
    if (self.reads == 3) ::kill(::getpid(), SIGKILL);
  };
  CHECK(run({"read", kFid, "-o", dir / "f"}).code == 1000 + SIGKILL);
  CHECK(files_in(dir.path()) == 0);
}

TEST_CASE("output that cannot be written has an exit code of its own") {
  const TempDir dir;
  hold("hello");
  const Ran full = run({"read", kFid}, {.out_path = "/dev/full"});
  CHECK(full.code == 14);
  CHECK(contains(full.err, "cannot write the standard output: No space left"));
  CHECK(run({"read", kFid, "-o", "/dev/full"}).code == 14);
  CHECK(run({"read", kFid, "-o", dir.path()}).code == 14);
  CHECK(run({"read", kFid, "-o", dir / "no/such/dir"}).code == 14);
  const Ran closed = run({"read", kFid}, {.close_out = true});
  CHECK(closed.code == 14);
  CHECK(contains(closed.err, "Bad file descriptor"));
}

TEST_CASE("a device or FIFO is written in place, never replaced") {
  hold("hello");
  CHECK(run({"read", kFid, "-o", "/dev/null"}).code == 0);
  struct stat found {};
  REQUIRE(::stat("/dev/null", &found) == 0);
  CHECK(S_ISCHR(found.st_mode));
}

TEST_CASE("a reader that leaves ends the read quietly") {
  const TempDir dir;
  hold(bytes_of(3 * kChunk));
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  const pid_t reader = ::fork();
  if (reader == 0) {
    const int fd = ::open((dir / "fifo").c_str(), O_RDONLY);
    char some[100];
    (void)!::read(fd, some, sizeof some);
    ::_exit(0);
  }
  const Ran ran = run({"read", kFid}, {.out_path = dir / "fifo"});
  CHECK(kelp::test::wait_for(reader) == 0);
  CHECK(ran.code == 14);
  CHECK(ran.err.empty());
}
