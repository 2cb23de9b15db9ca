// The sidecar's own thread and sockets, on a real worker behind a stand-in listener.
#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "dataplane/checksum/stored_checksum.h"
#include "shm_ring/file_id.h"
#include "sidecar/listener.h"
#include "sidecar/sidecar.h"
#include "support/gzip_bomb.h"
#include "support/gzip_writer.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp::test;

struct Answer {
  int status = 0;
  std::string head;
  std::string body;
};

class Talk {
 public:
  /// `receive_bytes`: of its socket's buffer; 0: as the system likes.
  explicit Talk(std::uint16_t port, int receive_bytes = 0)
      : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_in address = loopback(port);
    const timeval patience{20, 0};
    if (receive_bytes != 0) {
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    }
    ::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    REQUIRE(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
            0);
  }

  static bool can_connect(std::uint16_t port) {
    const kelp::UniqueFd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const sockaddr_in address = loopback(port);
    return ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) ==
           0;
  }

  void send(const std::string& text) {
    REQUIRE(::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(text.size()));
  }
  void get(const std::string& target) { send("GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n"); }
  void end() { ::shutdown(socket_.get(), SHUT_WR); }

  /// Waits for an answer to begin, and takes nothing of it.
  bool begins() const {
    pollfd source{socket_.get(), POLLIN, 0};
    return ::poll(&source, 1, 20'000) == 1;
  }
  /// A status of 0: the connection ended first. A body may be shorter than it says, then.
  Answer answer() {
    Answer got;
    while (got.head.find("\r\n\r\n") == std::string::npos) {
      if (received_.empty() && !receive()) return {};
      got.head += received_.front();
      received_.erase(0, 1);
    }
    got.status = std::stoi(got.head.substr(9, 3));
    const std::size_t at = got.head.find("Content-Length: ");
    const std::size_t wanted = at == std::string::npos ? 0 : std::stoul(got.head.substr(at + 16));
    while (received_.size() < wanted && receive()) {
    }
    got.body = received_.substr(0, wanted);
    received_.erase(0, wanted);
    return got;
  }
  /// What has come, as much as there is room for at once. False: that was the end.
  bool take_some() {
    std::array<char, 65536> bytes;
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), MSG_DONTWAIT);
    if (got > 0) received_.append(bytes.data(), static_cast<std::size_t>(got));
    return got > 0 || (got < 0 && errno == EAGAIN);
  }
  const std::string& received() const { return received_; }

 private:
  static sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  bool receive() {
    std::array<char, 65536> bytes;
    const ssize_t got = ::recv(socket_.get(), bytes.data(), bytes.size(), 0);
    if (got > 0) received_.append(bytes.data(), static_cast<std::size_t>(got));
    return got > 0;
  }

  kelp::UniqueFd socket_;
  std::string received_;
};

std::string text_of(const std::vector<std::byte>& bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string fid_text(const kelp_fid& fid) {
  std::array<char, 40> text;
  kelp_fid_format(&fid, text.data());
  return text.data();
}

constexpr std::size_t kSmall = 4000;
constexpr std::size_t kLarge = 3'500'000;

struct Served {
  explicit Served(TestDaemonOptions::Drive drive = TestDaemonOptions::Drive::kThread)
      : volume(dir.path(), 3) {
    empty = volume.put(1, 0x1000, {});
    small = volume.put(2, 0x1000, pattern(kSmall, 2));
    large = volume.put(3, 0x1000, pattern(kLarge, 3));
    TestDaemonOptions options;
    options.drive = drive;
    options.worker.loader.directories = {{dir.path().string(), ""}};
    daemon = std::make_unique<TestDaemon>(options);
    auto listener = kelp::sidecar::listen_tcp("127.0.0.1", 0);
    REQUIRE(listener);
    sockaddr_in address{};
    socklen_t bytes = sizeof address;
    ::getsockname(listener->get(), reinterpret_cast<sockaddr*>(&address), &bytes);
    port = ntohs(address.sin_port);
    kelp::sidecar::Options about;
    about.listeners.push_back(std::move(*listener));
    about.run_dir = daemon->run_dir();
    about.drained = [this] { drained = true; };
    auto started = kelp::sidecar::Sidecar::start(std::move(about));
    REQUIRE(started);
    sidecar = std::move(*started);
    REQUIRE(eventually([&] { return get(read(small)).status == 200; }));
  }

  static std::string read(const kelp_fid& fid, const std::string& more = "") {
    return "/read?file_id=" + fid_text(fid) + more;
  }
  Answer get(const std::string& target) const {
    Talk talk(port);
    talk.get(target);
    return talk.answer();
  }

  TempDir dir;
  SmallVolume volume;
  kelp_fid empty{}, small{}, large{};
  std::unique_ptr<TestDaemon> daemon;
  std::uint16_t port = 0;
  std::atomic<bool> drained{false};
  std::unique_ptr<kelp::sidecar::Sidecar> sidecar;  // ends before what it is attached to
};

}  // namespace

TEST_CASE("needles come whole and in parts, small and in pieces") {
  Served served;
  CHECK(served.get(Served::read(served.small)).body == text_of(pattern(kSmall, 2)));
  const Answer whole = served.get(Served::read(served.large));
  CHECK(whole.status == 200);
  CHECK((whole.body == text_of(pattern(kLarge, 3))));
  const Answer part = served.get(Served::read(served.large, "&offset=1000000&size=2000000"));
  CHECK((part.body == text_of(pattern(kLarge, 3)).substr(1'000'000, 2'000'000)));
  const Answer none = served.get(Served::read(served.empty));
  CHECK(none.status == 200);
  CHECK(none.body.empty());
}

TEST_CASE("what is not there is never a 200") {
  Served served;
  CHECK(served.get(Served::read(served.small, "&offset=1&size=4000")).status == 416);
  CHECK(served.get(Served::read(served.small, "&offset=4001")).status == 416);
  CHECK(served.get(Served::read(served.large, "&size=99999999")).status == 416);
  CHECK(served.get("/read?file_id=3,7700001000").status == 404);
  CHECK(served.get("/read?file_id=3,0200001001").status == 404);
  CHECK(served.get("/read?file_id=4,0200001000").status == 503);
  CHECK(served.get("/nothing").status == 404);
}

TEST_CASE("requests of one connection are answered in their order") {
  Served served;
  Talk talk(served.port);
  std::string all;
  for (int i = 0; i < 20; ++i) {
    all += "GET " + Served::read(i % 5 == 4 ? served.large : served.small, "&offset=10&size=100") +
           " HTTP/1.1\r\nHost: x\r\n\r\n";
  }
  talk.send(all);
  talk.end();
  for (int i = 0; i < 20; ++i) {
    CAPTURE(i);
    const auto needle = i % 5 == 4 ? pattern(kLarge, 3) : pattern(kSmall, 2);
    CHECK(talk.answer().body == text_of(needle).substr(10, 100));
  }
  CHECK(talk.answer().status == 0);
}

TEST_CASE("a large body is cut where its needle is written anew meanwhile") {
  Served served;
  Talk talk(served.port);
  talk.get(Served::read(served.large));
  // The kernel holds a part of the answer; the rest waits for us.
  std::this_thread::sleep_for(std::chrono::milliseconds(200));
  served.volume.put(3, 0x1000, pattern(kLarge, 4));
  const Answer got = talk.answer();
  CHECK(got.status == 200);
  const bool one_of_them =
      got.body == text_of(pattern(kLarge, 3)) || got.body == text_of(pattern(kLarge, 4));
  CHECK((one_of_them || got.body.size() < kLarge));
}

TEST_CASE("a large body with a damaged byte never comes whole, wherever that byte is") {
  Served served;
  const std::vector<std::byte> right = pattern(kLarge, 5);
  // The first read is 64 KiB, then come pieces of 256 KiB; the last piece is a short one.
  for (const std::size_t at :
       {std::size_t{0}, std::size_t{65536}, std::size_t{1'000'000}, kLarge - 300'000, kLarge - 1}) {
    CAPTURE(at);
    std::vector<std::byte> damaged = right;
    damaged[at] ^= std::byte{1};
    served.volume.VolumeWriter::put(
        {.id = 4, .cookie = 0x1000, .data = std::move(damaged), .checksum = kelp::crc32c(right)});
    const kelp_fid fid{3, 0x1000, 4};
    const Answer got = served.get(Served::read(fid));
    CHECK(got.status == 200);
    CHECK(got.body.size() < kLarge);
    // A part cannot be judged: that is said in docs/api.md.
    CHECK(served.get(Served::read(fid, "&offset=1")).body.size() == kLarge - 1);
  }
}

TEST_CASE("a large body comes whole in whatever form its record keeps the checksum") {
  Served served;
  const std::vector<std::byte> right = pattern(kLarge, 6);
  for (const std::uint32_t stored : {kelp::crc32c(right), kelp::masked_crc(kelp::crc32c(right))}) {
    served.volume.VolumeWriter::put({.id = 5, .cookie = 0x1000, .data = right, .checksum = stored});
    const Answer got = served.get(Served::read({3, 0x1000, 5}));
    CHECK(got.status == 200);
    CHECK((got.body == text_of(right)));
  }
}

TEST_CASE("a large compressed needle comes whole, and too large a one in parts alone") {
  Served served;
  const std::vector<std::byte> text = pattern(kLarge, 7);
  const kelp_fid packed = served.volume.put(6, 0x1000, gzip_member(text, 1), kelp::kFlagCompressed);
  CHECK((served.get(Served::read(packed)).body == text_of(text)));
  const Answer part = served.get(Served::read(packed, "&offset=100&size=3000000"));
  CHECK((part.body == text_of(text).substr(100, 3'000'000)));

  // 72 MiB in pieces of 1 MiB are 76 times 72 MiB, and 4 GiB are the most.
  const kelp_fid bomb = served.volume.put(7, 0x1000, gzip_bomb(18), kelp::kFlagCompressed);
  const std::string range = Served::read(bomb, "&offset=1");
  for (const std::string& target : {Served::read(bomb), range}) {
    const Answer whole = served.get(target);
    CHECK(whole.status == 503);
    CHECK(whole.body.find("has 75497472 bytes") != std::string::npos);
    CHECK(whole.body.find("ask for parts of up to 1 MiB") != std::string::npos);
  }
  const Answer some = served.get(Served::read(bomb, "&offset=40000000&size=1048576"));
  CHECK(some.status == 200);
  CHECK((some.body == std::string(1 << 20, '\0')));
  CHECK(served.get(Served::read(bomb, "&offset=40000000&size=3000000")).status == 200);
}

/// How 30 clients fare that take a compressed needle of 4 MiB steadily, six more than there are
/// slabs for it, while others read small ones.
struct Crowd {
  int whole = 0;
  int refused = 0;
  int cut = 0;
  int small_failed = 0;
  double longest_pause_s = 0;  ///< of ours
};

Crowd crowd(Served& served, const kelp_fid& packed) {
  constexpr std::size_t kBytes = 4 << 20;
  using Clock = std::chrono::steady_clock;
  Crowd seen;
  std::vector<std::unique_ptr<Talk>> talks;
  for (int i = 0; i < 30; ++i) {
    talks.push_back(std::make_unique<Talk>(served.port, 32 << 10));
    talks.back()->send("GET " + Served::read(packed) +
                       " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  }
  auto last = Clock::now();
  while (!talks.empty()) {
    seen.small_failed += served.get(Served::read(served.small)).status != 200;
    std::erase_if(talks, [&](const auto& talk) {
      if (talk->take_some()) return false;
      const std::string& all = talk->received();
      const std::size_t head = all.find("\r\n\r\n");
      const bool ok = all.starts_with("HTTP/1.1 200");
      ++(all.starts_with("HTTP/1.1 503")         ? seen.refused
         : ok && all.size() - head - 4 == kBytes ? seen.whole
                                                 : seen.cut);
      return true;
    });
    std::this_thread::sleep_for(std::chrono::milliseconds(40));
    const auto now = Clock::now();
    seen.longest_pause_s =
        std::max(seen.longest_pause_s, std::chrono::duration<double>(now - last).count());
    last = now;
  }
  return seen;
}

TEST_CASE("compressed bodies beyond the slabs are refused whole, and small reads go on") {
  Served served;
  const kelp_fid packed = served.volume.put(6, 0x1000, gzip_bomb(1), kelp::kFlagCompressed);
  REQUIRE(eventually([&] { return served.get(Served::read(packed, "&size=1")).status == 200; }));
  Crowd seen;
  // Who takes nothing for half a second may be cut: then it was this machine that stood still.
  for (int attempt = 0; attempt < 5; ++attempt) {
    seen = crowd(served, packed);
    if (seen.cut == 0 || seen.longest_pause_s < 0.1) break;
  }
  CHECK(seen.cut == 0);
  CHECK(seen.small_failed == 0);
  CHECK(seen.whole >= 24);
  CHECK(seen.whole + seen.refused == 30);
}

TEST_CASE("an answer comes whole to who has sent more, and then no more") {
  constexpr std::size_t kBytes = 200'000;  // they fit into the kernel's buffers, and not into ours
  Served served;
  Talk talk(served.port, 32 << 10);
  talk.send("GET " + Served::read(served.large, "&size=" + std::to_string(kBytes)) +
            " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  REQUIRE(talk.begins());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  talk.get("/health");
  talk.end();
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  CHECK((talk.answer().body == text_of(pattern(kLarge, 3)).substr(0, kBytes)));
}

TEST_CASE("clients that leave in the middle of a read are forgotten") {
  Served served;
  for (int i = 0; i < 100; ++i) {
    Talk talk(served.port);
    talk.get(Served::read(i % 2 == 0 ? served.large : served.small));
  }
  CHECK(served.get(Served::read(served.small)).status == 200);
}

TEST_CASE("a drain ends what is under way whole, closes who asks nothing, and lets nobody in") {
  Served served;
  Talk idle(served.port);
  Talk kept(served.port);
  kept.get(Served::read(served.small));
  CHECK(kept.answer().status == 200);
  Talk slow(served.port);
  slow.get(Served::read(served.large));
  // The kernel holds a part of the answer; the rest waits for us.
  REQUIRE(slow.begins());
  served.sidecar->drain();
  CHECK(idle.answer().status == 0);
  CHECK(kept.answer().status == 0);
  CHECK_FALSE(served.drained.load());
  const Answer whole = slow.answer();
  CHECK((whole.body == text_of(pattern(kLarge, 3))));
  CHECK(slow.answer().status == 0);
  CHECK(eventually([&] { return served.drained.load(); }));
  CHECK_FALSE(Talk::can_connect(served.port));
}

TEST_CASE("cut closes all at once, and lets go of what is read for those who have left") {
  Served served(TestDaemonOptions::Drive::kPumped);
  served.daemon->pause();
  const auto requests = [&] { return served.sidecar->counters().requests.value(); };
  const std::uint64_t before = requests();
  Talk stays(served.port);
  stays.get(Served::read(served.small));
  {
    Talk leaves(served.port);
    leaves.get(Served::read(served.large));
    REQUIRE(eventually([&] { return requests() == before + 2; }));
  }
  served.sidecar->cut();
  CHECK(stays.answer().status == 0);
  served.daemon->resume();
  CHECK(eventually([&] { return served.daemon->clients() == 0; }));
}

TEST_CASE("while there is no daemon the answer is 503, and then it is attached to anew") {
  Served served;
  Talk kept(served.port);
  served.daemon->close_sockets();
  REQUIRE(eventually([&] { return served.get("/health").status == 503; }));
  CHECK(served.get(Served::read(served.small)).status == 503);
  served.daemon->listen_again();
  REQUIRE(eventually([&] { return served.get(Served::read(served.small)).status == 200; }));
  CHECK(served.get("/health").status == 200);
  kept.get(Served::read(served.small));
  CHECK(kept.answer().body == text_of(pattern(kSmall, 2)));
}
