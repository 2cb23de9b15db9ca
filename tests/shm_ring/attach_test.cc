#include "shm_ring/attach.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using namespace kelp;

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

struct Pair {
  Pair() {
    int fds[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    one.reset(fds[0]);
    two.reset(fds[1]);
  }
  UniqueFd one;
  UniqueFd two;
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

TEST_CASE("descriptors arrive in order, close-on-exec, and owned") {
  const std::size_t before = open_descriptors();
  {
    Pair pair;
    const UniqueFd zero(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::vector<int> fds{null.get(), zero.get()};
    REQUIRE(send_message(pair.one.get(), bytes_of("hello"), fds));
    std::array<std::byte, 16> buffer;
    const auto received = receive_message(pair.two.get(), buffer);
    REQUIRE(received);
    CHECK(received->bytes == 5);
    REQUIRE(received->fds.size() == 2);
    char byte = 1;
    CHECK(::read(received->fds[0].get(), &byte, 1) == 0);
    CHECK(::read(received->fds[1].get(), &byte, 1) == 1);
    CHECK((::fcntl(received->fds[0].get(), F_GETFD) & FD_CLOEXEC) != 0);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("as many descriptors as a client may have rings fit, one more is refused") {
  Pair pair;
  const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  std::vector<int> fds(2 + 2 * kMaxRingsPerClient, null.get());
  REQUIRE(send_message(pair.one.get(), bytes_of("x"), fds));
  std::array<std::byte, 16> buffer;
  CHECK(receive_message(pair.two.get(), buffer)->fds.size() == fds.size());
  fds.push_back(null.get());
  CHECK_FALSE(send_message(pair.one.get(), bytes_of("x"), fds));
}

TEST_CASE("a message longer than the protocol allows is an error and leaks no descriptor") {
  const std::size_t before = open_descriptors();
  {
    Pair pair;
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::vector<int> fds(5, null.get());
    REQUIRE(send_message(pair.one.get(), bytes_of(std::string(17, 'x')), fds));
    std::array<std::byte, 16> buffer;
    const auto received = receive_message(pair.two.get(), buffer);
    REQUIRE_FALSE(received);
    CHECK(received.error().what.find("longer") != std::string::npos);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("more descriptors than there is room for are an error and leak none") {
  const std::size_t before = open_descriptors();
  {
    Pair pair;
    // By hand: send_message() would refuse. 253 is what the kernel passes at most.
    const UniqueFd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const std::vector<int> fds(253, null.get());
    std::vector<char> control(CMSG_SPACE(253 * sizeof(int)));
    char byte = 0;
    iovec part{&byte, 1};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(253 * sizeof(int));
    std::memcpy(CMSG_DATA(header), fds.data(), 253 * sizeof(int));
    REQUIRE(::sendmsg(pair.one.get(), &message, 0) == 1);
    std::array<std::byte, 16> buffer;
    CHECK_FALSE(receive_message(pair.two.get(), buffer));
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a closed peer reads as 0 bytes, and sending to it is an error, not a signal") {
  Pair pair;
  pair.one.reset();
  std::array<std::byte, 16> buffer;
  const auto received = receive_message(pair.two.get(), buffer);
  REQUIRE(received);
  CHECK(received->bytes == 0);
  CHECK_FALSE(send_message(pair.two.get(), bytes_of("x"), {}));
}

TEST_CASE("a silent peer ends in a timeout") {
  Pair pair;
  const timeval limit{0, 10'000};
  ::setsockopt(pair.two.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::array<std::byte, 16> buffer;
  const auto received = receive_message(pair.two.get(), buffer);
  REQUIRE_FALSE(received);
  CHECK(received.error().os_error == EAGAIN);
}

TEST_CASE("a socket path too long for a Unix socket is refused with a sentence") {
  const auto fd = connect_seqpacket("/tmp/" + std::string(200, 'x'), 100);
  REQUIRE_FALSE(fd);
  CHECK(fd.error().what.find("longer than the 107 bytes") != std::string::npos);
}

}  // namespace
