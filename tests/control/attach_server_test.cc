// Who gets in, what they may hold, and that all of it comes back.
#include "control/attach_server.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "support/raw_client.h"
#include "support/served_attach.h"

namespace {

using namespace kelp;
using namespace kelp::test;

std::unique_ptr<RawClient> attach(const ServedAttach& served, std::uint32_t channels = 1,
                                  std::uint64_t data_bytes = 4096) {
  return std::make_unique<RawClient>(served.socket_path(), channels, data_bytes, "tester");
}

/// The sentence an attach is refused with; "" if it is not.
std::string refusal(const ServedAttach& served, std::uint32_t channels = 1,
                    std::uint64_t data_bytes = 4096) {
  try {
    attach(served, channels, data_bytes);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

std::string me() {
  return "uid " + std::to_string(::geteuid());
}

TEST_CASE("a client's report says who it is and what it holds") {
  ServedAttach served;
  const auto before = std::chrono::system_clock::now();
  const auto client = attach(served, 3, 10'000);
  const auto reports = served.reports();
  REQUIRE(reports.size() == 1);
  CHECK(reports[0].name == "tester");
  CHECK(reports[0].uid == ::geteuid());
  CHECK(reports[0].gid == ::getegid());
  CHECK(reports[0].pid == ::getpid());
  CHECK(reports[0].channels == 3);
  CHECK(reports[0].rings == 3);
  CHECK(reports[0].data_bytes == 12'288);
  CHECK(reports[0].page_bytes == 4096);
  CHECK(reports[0].in_flight == 0);
  CHECK(reports[0].in_flight_bytes == 0);
  CHECK(reports[0].since >= before);
  CHECK_FALSE(reports[0].leaving);
}

TEST_CASE("who is on no list is refused with the reason and whoever is gets in") {
  AttachLimits limits;
  limits.admitted.uids = {::geteuid() + 1};
  {
    ServedAttach served(limits);
    CHECK(refusal(served).find(me() + ", gid ") == 0);
    CHECK(refusal(served).find("client.allow_uids") != std::string::npos);
    CHECK(served.clients() == 0);
  }
  limits.admitted.gids = {::getegid()};
  ServedAttach served(limits);
  CHECK(refusal(served).empty());
}

TEST_CASE("a user's quotas bound clients, channels and bytes, and come back with the memory") {
  AttachLimits limits;
  limits.per_uid = {.clients = 2, .channels = 4, .data_bytes = 64 * 1024};
  ServedAttach served(limits);
  auto first = attach(served, 3, 40 * 1024);
  CHECK(refusal(served, 2) == me() +
                                  " uses 3 of its 4 channels and asks for 2 more "
                                  "(client.max_channels_per_uid)");
  CHECK(refusal(served, 1, 24 * 1024 + 1).find("40960 of its 65536 bytes of data areas") !=
        std::string::npos);
  const auto second = attach(served, 1, 24 * 1024);
  CHECK(refusal(served).find("uses 2 of its 2 clients") != std::string::npos);
  first.reset();
  CHECK(eventually([&] { return refusal(served, 3, 40 * 1024).empty(); }));
}

TEST_CASE("a data area that is larger for being whole pages counts as large as it is") {
  AttachLimits limits;
  limits.per_uid.data_bytes = 5000;
  ServedAttach served(limits);
  CHECK(refusal(served, 1, 4096).empty());
  CHECK(eventually([&] { return served.clients() == 0; }));
  CHECK(refusal(served, 1, 5000).find("asks for 8192 more") != std::string::npos);
}

TEST_CASE("a dead client's memory reads as zeroes to whoever kept it mapped") {
  ServedAttach served;
  auto client = attach(served, 1, 64 * 1024);
  std::memset(client->data.data(), 0x55, client->data.size());
  // As a forked child has it: the memory without the socket.
  const Mapping data = std::move(client->data);
  const Mapping rings = std::move(client->segment);
  const std::vector<UniqueFd> fds = std::move(client->fds);
  client.reset();
  CHECK(eventually([&] { return served.clients() == 0; }));
  for (const std::size_t which : {std::size_t{0}, std::size_t{1}}) {
    struct stat facts {};
    REQUIRE(::fstat(fds[which].get(), &facts) == 0);
    CHECK(facts.st_blocks == 0);
  }
  const auto is_zero = [](std::byte byte) { return byte == std::byte{0}; };
  CHECK(std::all_of(data.data(), data.data() + data.size(), is_zero));
  CHECK(std::all_of(rings.data(), rings.data() + rings.size(), is_zero));
}

std::size_t entries_of(const char* directory) {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator(directory)) ++count;
  return count;
}

/// Files that are mapped; how the allocator and the thread stacks lie changes by itself.
std::size_t mapped_files() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);) count += line.find("memfd:") != line.npos;
  return count;
}

TEST_CASE("strangers who hold an attach half open hold up nobody and are sent away") {
  ServedAttach served;
  std::vector<UniqueFd> strangers;
  for (int i = 0; i < 300; ++i) {
    auto stranger = connect_seqpacket(served.socket_path(), 5000);
    REQUIRE(stranger);
    if (i % 3 == 0) {
      static_cast<void>(!::send(stranger->get(), "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
    }
    strangers.push_back(std::move(*stranger));
    if (i % 50 == 0) CHECK(refusal(served).empty());
  }
  const auto gone = [](const UniqueFd& fd) {
    char byte;
    return ::recv(fd.get(), &byte, 1, MSG_DONTWAIT) == 0;
  };
  CHECK(eventually([&] { return std::all_of(strangers.begin(), strangers.end(), gone); }));
  CHECK(refusal(served).empty());
}

TEST_CASE("ten thousand attaches, refused ones among them, leave no place taken") {
  AttachLimits limits;
  limits.per_uid = {.clients = 8, .channels = 16, .data_bytes = 1 << 20};
  ServedAttach served(limits);
  REQUIRE(eventually([&] { return served.worker().loader().settled(); }));
  CHECK(refusal(served).empty());
  REQUIRE(eventually([&] { return served.clients() == 0; }));
  const std::size_t descriptors = entries_of("/proc/self/fd");
  const std::size_t mapped = mapped_files();
  int refused = 0;
  for (int i = 0; i < 10'000; ++i) {
    const bool greedy = i % 4 == 0;
    if (!refusal(served, greedy ? 17 : 1).empty()) ++refused;
  }
  CHECK(refused >= 2500);
  CHECK(eventually([&] { return served.clients() == 0; }));
  CHECK(eventually([&] { return refusal(served, 16, 1 << 20).empty(); }));
  CHECK(eventually([&] { return entries_of("/proc/self/fd") <= descriptors; }));
  CHECK(mapped_files() <= mapped);
}

}  // namespace
