#include "control/unix_listener.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include <cerrno>

#include "control/temp_dir.h"
#include "control/unix_client.h"

using kelp::UnixListener;
using kelp::UnixListenerOptions;
using kelp::UnixSocketKind;
using kelp::test::connect_to;
using kelp::test::TempDir;

namespace {

mode_t mode_of(const std::string& path) {
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  return found.st_mode & 07777;
}

/// A socket file as a killed daemon leaves it.
void leave_stale_socket(const std::string& path, int type = SOCK_STREAM) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const kelp::UniqueFd fd(::socket(AF_UNIX, type, 0));
  REQUIRE(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(fd.get(), 1) == 0);
}

std::string error_of(const std::string& path, const UnixListenerOptions& options = {}) {
  const auto listener = UnixListener::create(path, options);
  return listener ? "(listening)" : listener.error().what;
}

}  // namespace

TEST_CASE("a listener answers at its path with the mode asked for, whatever the umask") {
  const TempDir dir;
  const mode_t before = ::umask(0077);
  const auto wide = UnixListener::create(dir / "a", {.mode = 0660});
  ::umask(0);
  const auto narrow =
      UnixListener::create(dir / "b", {.kind = UnixSocketKind::kSeqPacket, .mode = 0600});
  ::umask(before);
  REQUIRE(wide);
  REQUIRE(narrow);
  CHECK(mode_of(dir / "a") == 0660);
  CHECK(mode_of(dir / "b") == 0600);
  CHECK(connect_to(dir / "a"));
  CHECK(connect_to(dir / "b", SOCK_SEQPACKET));
}

TEST_CASE("a listener removes its file, and nobody else's") {
  const TempDir dir;
  { REQUIRE(UnixListener::create(dir / "s")); }
  CHECK(::access((dir / "s").c_str(), F_OK) != 0);
  {
    const auto listener = UnixListener::create(dir / "s");
    REQUIRE(listener);
    REQUIRE(::unlink((dir / "s").c_str()) == 0);
    dir.write("s", "another's");
  }
  CHECK(kelp::test::read_text(dir / "s") == "another's");
}

TEST_CASE("a moved listener goes on listening") {
  const TempDir dir;
  auto made = UnixListener::create(dir / "s");
  REQUIRE(made);
  const UnixListener moved = std::move(*made);
  made = kelp::plain_error("gone");
  CHECK(connect_to(dir / "s"));
  CHECK(moved.path() == dir / "s");
}

TEST_CASE("the socket of a killed daemon is replaced") {
  const TempDir dir;
  for (const int type : {SOCK_STREAM, SOCK_SEQPACKET}) {
    leave_stale_socket(dir / "s", type);
    CHECK_FALSE(connect_to(dir / "s", type));
    const auto listener = UnixListener::create(dir / "s");
    REQUIRE(listener);
    CHECK(connect_to(dir / "s"));
  }
}

TEST_CASE("a socket that answers is not taken over") {
  const TempDir dir;
  const auto first = UnixListener::create(dir / "s", {.backlog = 1});
  REQUIRE(first);
  CHECK(error_of(dir / "s").find("another process answers there") != std::string::npos);
  CHECK(error_of(dir / "s", {.kind = UnixSocketKind::kSeqPacket}).find("another process") !=
        std::string::npos);
  // The first question above waits in the backlog still; with this one it is full.
  const kelp::UniqueFd waiting = connect_to(dir / "s");
  CHECK(error_of(dir / "s").find("another process") != std::string::npos);
}

TEST_CASE("a file in the way is kept and named") {
  const TempDir dir;
  dir.write("s", "precious");
  CHECK(error_of(dir / "s").find("not a socket") != std::string::npos);
  CHECK(kelp::test::read_text(dir / "s") == "precious");
  CHECK(error_of(dir.path()).find("not a socket") != std::string::npos);
  REQUIRE(::symlink((dir / "s").c_str(), (dir / "link").c_str()) == 0);
  CHECK(error_of(dir / "link").find("not a socket") != std::string::npos);
}

TEST_CASE("a path that does not fit is refused by name and length") {
  const TempDir dir;
  const std::string path = dir / std::string(200, 'x');
  const std::string error = error_of(path);
  CHECK(error.find(path) != std::string::npos);
  CHECK(error.find("at most 107 bytes") != std::string::npos);
  CHECK(error_of("").find("without a path") != std::string::npos);
  const std::string longest = dir.path() + "/" + std::string(106 - dir.path().size(), 'x');
  CHECK(error_of(longest) == "(listening)");
}

TEST_CASE("a group that does not exist is an error and leaves no file") {
  const TempDir dir;
  CHECK(error_of(dir / "s", {.group = "no-such-group"}).find("no group no-such-group") !=
        std::string::npos);
  CHECK(::access((dir / "s").c_str(), F_OK) != 0);
  if (::geteuid() == 0) CHECK(error_of(dir / "s", {.group = "daemon"}) == "(listening)");
}

TEST_CASE("a directory that is not there is an error") {
  CHECK(UnixListener::create("/nowhere/at/all/s").error().os_error == ENOENT);
}
