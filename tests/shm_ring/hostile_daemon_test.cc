// libkelp against whatever may answer on the attach socket.
#include <doctest/doctest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <filesystem>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "shm_ring/attach.h"
#include "shm_ring/kelp.h"
#include "support/temp_dir.h"

namespace {

using namespace kelp;

std::size_t open_descriptors() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

UniqueFd memfd(std::uint64_t bytes) {
  UniqueFd fd(::memfd_create("test", MFD_CLOEXEC));
  REQUIRE(::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  return fd;
}

/// What a daemon would send to a client of one channel.
struct Offer {
  AttachReply reply;
  std::vector<UniqueFd> fds;
  std::size_t reply_bytes = sizeof(AttachReply);
  bool answers = true;

  Offer() {
    reply.data_bytes = 64 * 1024;
    reply.data_page_bytes = kPageBytes;
    reply.workers = 1;
    reply.channels = 1;
    reply.submission_entries = 4;
    reply.completion_entries = 8;
    reply.max_timeout_us = 1'000'000;
    const SegmentLayout layout{1, 4, 8};
    fds.push_back(memfd(layout.segment_bytes()));
    fds.push_back(memfd(reply.data_bytes));
    fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    fds.emplace_back(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  }
};

struct Answer {
  kelp_status status = KELP_OK;
  std::string detail;
};

/// Connects to a daemon that makes this offer.
Answer connect_to(const Offer& offer, AttachRequest* seen = nullptr) {
  test::TempDir dir;
  const std::string run_dir = dir.path().string();
  const std::string path = run_dir + "/" + kAttachSocketName;
  const UniqueFd listener(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::listen(listener.get(), 1) == 0);
  std::thread daemon([&] {
    const UniqueFd client(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    AttachRequest request;
    static_cast<void>(
        receive_message(client.get(), std::as_writable_bytes(std::span(&request, 1))));
    if (seen != nullptr) *seen = request;
    if (!offer.answers) return;
    std::vector<int> fds;
    for (const UniqueFd& fd : offer.fds) fds.push_back(fd.get());
    static_cast<void>(send_message(
        client.get(), std::as_bytes(std::span(&offer.reply, 1)).first(offer.reply_bytes), fds));
    char byte;
    static_cast<void>(::recv(client.get(), &byte, 1, 0));  // until the client leaves
  });
  kelp_options options = KELP_OPTIONS_INIT;
  options.run_dir = run_dir.c_str();
  options.data_bytes = 64 * 1024;
  options.name = "a-name-that-is-longer-than-the-sixty-four-bytes-there-are-for-it-in-a-request";
  kelp_connection* connection = nullptr;
  Answer answer;
  answer.status = kelp_connect(&options, &connection);
  answer.detail = kelp_error_detail();
  CHECK((connection != nullptr) == (answer.status == KELP_OK));
  kelp_close(connection);
  daemon.join();
  return answer;
}

TEST_CASE("an honest offer is taken, and nothing of it is left after the close") {
  const Offer offer;
  CHECK(connect_to(offer).status == KELP_OK);  // the first one also makes what stays for ever
  const std::size_t before = open_descriptors();
  AttachRequest seen;
  CHECK(connect_to(offer, &seen).status == KELP_OK);
  CHECK(open_descriptors() == before);
  CHECK(seen.magic == kAttachMagic);
  CHECK(seen.abi_major == kAbiMajor);
  CHECK(seen.channels == 1);
  CHECK(seen.data_bytes == 64 * 1024);
  CHECK(std::string(seen.name.data(), 12) == "a-name-that-");
}

TEST_CASE("a daemon of another ring version is refused by number") {
  Offer offer;
  offer.reply.abi_major = kAbiMajor + 1;
  const Answer answer = connect_to(offer);
  CHECK(answer.status == KELP_VERSION);
  CHECK(answer.detail.find("speaks ring version 2") != std::string::npos);
}

TEST_CASE("a newer minor version and features nobody asked for are no reason to refuse") {
  Offer offer;
  offer.reply.abi_minor = 77;
  offer.reply.features = UINT64_MAX;
  CHECK(connect_to(offer).status == KELP_OK);
}

TEST_CASE("something else that answers is not taken for kelpd") {
  Offer offer;
  offer.reply.magic = 0x4b4f2031'2e312f50;
  CHECK(connect_to(offer).status == KELP_VERSION);
}

TEST_CASE("a refusal carries the daemon's sentence") {
  Offer offer;
  offer.fds.clear();
  offer.reply.status = KELP_REFUSED;
  const std::string sentence = "uid 1000 is not admitted";
  sentence.copy(offer.reply.message.data(), sentence.size());
  const Answer answer = connect_to(offer);
  CHECK(answer.status == KELP_REFUSED);
  CHECK(answer.detail == sentence);
}

TEST_CASE(
    "a refusal without an end to its sentence is cut, one of an unknown status is a refusal") {
  Offer offer;
  offer.fds.clear();
  offer.reply.message.fill('x');
  for (const std::uint32_t status : {76U, 1000U, UINT32_MAX}) {
    CAPTURE(status);
    offer.reply.status = status;
    const Answer answer = connect_to(offer);
    CHECK(answer.status == KELP_REFUSED);
    CHECK(answer.detail.size() == 256);
  }
}

TEST_CASE("descriptors that come with a refusal or with nonsense are closed") {
  Offer refusal;
  refusal.reply.status = KELP_REFUSED;
  Offer nonsense;
  nonsense.reply.workers = 0;
  connect_to(refusal);
  const std::size_t before = open_descriptors();
  CHECK(connect_to(refusal).status == KELP_REFUSED);
  CHECK(connect_to(nonsense).status == KELP_VERSION);
  CHECK(open_descriptors() == before);
}

TEST_CASE("counts that make no sense are refused") {
  const std::vector<std::function<void(AttachReply&)>> lies{
      [](auto& r) { r.workers = 0; },
      [](auto& r) { r.channels = 0; },
      [](auto& r) { r.workers = 2; },
      [](auto& r) { r.workers = UINT32_MAX; },
      [](auto& r) { r.channels = kMaxRingsPerClient + 1; },
      [](auto& r) { r.workers = r.channels = 0x10000; },  // the product wraps to 0
      [](auto& r) {
        r.workers = 0x80000001;
        r.channels = 1;
      },
      [](auto& r) { r.submission_entries = 0; },
      [](auto& r) { r.submission_entries = 3; },
      [](auto& r) { r.submission_entries = 2; },
      [](auto& r) {
        r.submission_entries = 0x80000000;
        r.completion_entries = 0;
      },
      [](auto& r) { r.submission_entries = r.completion_entries = 0x80000000; },
      [](auto& r) { r.completion_entries = 4; },
      [](auto& r) { r.completion_entries = 12; },
      [](auto& r) { r.data_bytes = 0; },
      [](auto& r) { r.data_page_bytes = 0; },
      [](auto& r) { r.max_timeout_us = 0; },
  };
  for (std::size_t i = 0; i < lies.size(); ++i) {
    CAPTURE(i);
    Offer offer;
    lies[i](offer.reply);
    CHECK(connect_to(offer).status == KELP_VERSION);
  }
}

TEST_CASE("descriptors that are missing or too many are refused") {
  Offer offer;
  offer.fds.pop_back();
  CHECK(connect_to(offer).status == KELP_VERSION);
  offer.fds.clear();
  CHECK(connect_to(offer).status == KELP_VERSION);
  Offer more;
  more.fds.emplace_back(::eventfd(0, EFD_CLOEXEC));
  CHECK(connect_to(more).status == KELP_VERSION);
}

TEST_CASE("memory shorter than the reply says is refused before it is touched") {
  Offer rings;
  REQUIRE(::ftruncate(rings.fds[0].get(), kPageBytes) == 0);
  const Answer answer = connect_to(rings);
  CHECK(answer.status == KELP_SYSTEM);
  CHECK(answer.detail.find("the rings are 4096 bytes") != std::string::npos);

  Offer data;
  REQUIRE(::ftruncate(data.fds[1].get(), 32 * 1024) == 0);
  CHECK(connect_to(data).status == KELP_SYSTEM);

  for (const std::uint64_t bytes : {std::uint64_t{1} << 40, std::uint64_t{1} << 63, UINT64_MAX}) {
    CAPTURE(bytes);
    Offer huge;
    huge.reply.data_bytes = bytes;
    CHECK(connect_to(huge).status == KELP_SYSTEM);
  }
}

TEST_CASE("descriptors that are no memory are refused") {
  for (const std::size_t which : {0, 1}) {
    Offer offer;
    offer.fds[which].reset(::eventfd(0, EFD_CLOEXEC));
    CHECK(connect_to(offer).status == KELP_SYSTEM);
  }
}

TEST_CASE("half an answer, a long one and none are told from each other by a sentence") {
  Offer half;
  half.reply_bytes = 100;
  CHECK(connect_to(half).status == KELP_DISCONNECTED);
  Offer none;
  none.answers = false;
  const Answer answer = connect_to(none);
  CHECK(answer.status == KELP_DISCONNECTED);
  CHECK(answer.detail.find("instead of answering") != std::string::npos);
}

TEST_CASE("no daemon, a stale socket and an impossible path are errors with a sentence") {
  test::TempDir dir;
  const std::string run_dir = dir.path().string();
  kelp_options options = KELP_OPTIONS_INIT;
  options.run_dir = run_dir.c_str();
  kelp_connection* connection = nullptr;
  CHECK(kelp_connect(&options, &connection) == KELP_DISCONNECTED);
  CHECK(std::string(kelp_error_detail()).find("is kelpd running") != std::string::npos);

  const std::string path = run_dir + "/" + kAttachSocketName;
  {
    const UniqueFd bound(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    REQUIRE(::bind(bound.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  CHECK(kelp_connect(&options, &connection) == KELP_DISCONNECTED);

  const std::string long_dir = "/tmp/" + std::string(200, 'x');
  options.run_dir = long_dir.c_str();
  CHECK(kelp_connect(&options, &connection) == KELP_SYSTEM);
  CHECK(std::string(kelp_error_detail()).find("longer than") != std::string::npos);
}

TEST_CASE("options that make no sense are refused before anything is tried") {
  kelp_connection* connection = nullptr;
  const auto refused = [&](auto change) {
    kelp_options options = KELP_OPTIONS_INIT;
    options.run_dir = "/nonexistent";
    change(options);
    return kelp_connect(&options, &connection) == KELP_USAGE;
  };
  CHECK(refused([](auto& o) { o.size = 0; }));
  CHECK(refused([](auto& o) { o.size = 5000; }));
  CHECK(refused([](auto& o) { o.channels = 0; }));
  CHECK(refused([](auto& o) { o.channels = 65; }));
  CHECK(refused([](auto& o) { o.data_bytes = 0; }));
  CHECK(refused([](auto& o) { o.data_bytes = UINT64_MAX; }));
  CHECK(refused([](auto& o) { o.timeout_us = 0; }));
  CHECK(refused([](auto& o) { o.reserved = 1; }));
  CHECK(kelp_connect(nullptr, nullptr) == KELP_USAGE);
}

}  // namespace
