// Both ends of TCP links, on one thread: requests, answers, giving up, fences, and peers that lie.
#include <doctest/doctest.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "support/link_lab.h"

using namespace kelp;
using namespace kelp::test;

namespace {

constexpr std::byte kCanary{0xc5};

/// A buffer with guards on both sides.
struct Buffer {
  explicit Buffer(std::size_t bytes) : memory(bytes + 2 * kGuard, kCanary) {}
  std::span<std::byte> bytes() {
    return std::span(memory).subspan(kGuard, memory.size() - 2 * kGuard);
  }
  bool guards_stand() const {
    const auto is_canary = [](std::byte each) { return each == kCanary; };
    return std::all_of(memory.begin(), memory.begin() + kGuard, is_canary) &&
           std::all_of(memory.end() - kGuard, memory.end(), is_canary);
  }
  bool untouched() const {
    return std::ranges::all_of(memory, [](std::byte each) { return each == kCanary; });
  }

  static constexpr std::ptrdiff_t kGuard = 64;
  std::vector<std::byte> memory;
};

void send_raw(int fd, std::span<const std::byte> bytes) {
  REQUIRE(::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
          static_cast<ssize_t>(bytes.size()));
}

/// A gateway's link whose peer is a plain socket.
struct Alone {
  explicit Alone(std::uint16_t slots = 4) {
    TcpPair pair;
    peer = std::move(pair.b);
    link = &transport->add_gateway(std::move(pair.a), LinkLab::agreed(slots), {}, ear);
    link->start();
  }
  ~Alone() {
    link->fence();
    CHECK(until([&] { return link->fenced(); }));
  }
  template <class Condition>
  bool until(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      link->flush();
      transport->poll();
    }
    return true;
  }
  wire::Request next_request() {
    wire::Request request;
    std::size_t got = 0;
    auto* const to = reinterpret_cast<char*>(&request);
    REQUIRE(until([&] {
      const ssize_t n = ::recv(peer.get(), to + got, sizeof request - got, MSG_DONTWAIT);
      if (n > 0) got += static_cast<std::size_t>(n);
      return got == sizeof request;
    }));
    return request;
  }
  std::vector<std::byte> answer_to(const wire::Request& request, std::uint32_t bytes) {
    wire::Answer answer;
    answer.slot = request.slot;
    answer.generation = request.generation;
    answer.bytes = bytes;
    std::vector<std::byte> all(sizeof answer + bytes);
    const auto payload = std::span(all).subspan(sizeof answer);
    fill(payload, request.needle, request.offset_bytes);
    answer.crc32c = crc32c(payload);
    wire::seal(answer, wire::FrameKind::kAnswer);
    std::memcpy(all.data(), &answer, sizeof answer);
    return all;
  }

  GatewayEar ear;
  std::unique_ptr<TcpTransport> transport{TcpTransport::create().value()};
  TcpGatewayLink* link = nullptr;
  UniqueFd peer;
};

}  // namespace

TEST_CASE("answers of every size land in their buffers, and nowhere else") {
  ScriptedTarget target;
  LinkLab lab(target);
  std::uint32_t owner = 0;
  for (const std::size_t bytes :
       {1, 2, 100, 4095, 4096, 16'383, 16'384, 16'385, 65'000, 70'000, 300'000, 1 << 20}) {
    CAPTURE(bytes);
    Buffer buffer(bytes);
    ++owner;
    REQUIRE(lab.gateway->ask(owner, LinkLab::read(owner, buffer.bytes(), 5)));
    REQUIRE(lab.until([&] { return lab.ear.answers.contains(owner); }));
    const HeardAnswer& heard = lab.ear.answers.at(owner);
    CHECK(heard.intact);
    CHECK(heard.answer.status == KELP_OK);
    CHECK(heard.answer.bytes == bytes);
    CHECK(heard.answer.total_bytes == bytes + 5);
    CHECK(holds(buffer.bytes(), owner, 5));
    CHECK(buffer.guards_stand());
  }
  CHECK(lab.gateway->in_flight() == 0);
  CHECK(lab.target->in_flight() == 0);
}

namespace {

/// A file without a name that holds `needle` from `offset` on.
UniqueFd file_with(std::uint64_t needle, std::size_t offset, std::size_t bytes) {
  UniqueFd file(::memfd_create("kelp-test", MFD_CLOEXEC));
  std::vector<std::byte> content(offset + bytes);
  fill(std::span(content).subspan(offset), needle, 0);
  REQUIRE(::pwrite(file.get(), content.data(), content.size(), 0) ==
          static_cast<ssize_t>(content.size()));
  return file;
}

}  // namespace

TEST_CASE("bytes of a file arrive as those of a room do, between answers from rooms") {
  constexpr std::size_t kAt = 12'345;
  const UniqueFd file = file_with(1, kAt, 1 << 20);
  // Needle 1 comes from the file, all others from rooms.
  ScriptedTarget target([&](TargetLink& link, const wire::Request& request) {
    if (request.needle != 1) {
      ScriptedTarget::answer_whole(link, request);
      return;
    }
    wire::Answer answer;
    answer.slot = request.slot;
    answer.bytes = request.length_bytes;
    answer.total_bytes = request.length_bytes;
    std::vector<std::byte> same(request.length_bytes);
    fill(same, 1, 0);
    link.answer(answer, {crc32c(same), file.get(), kAt});
  });
  LinkLab lab(target);
  // Together more than a socket holds: it is full now and then, in the middle of either.
  const std::size_t sizes[] = {1 << 20, 100, 1 << 20, 1 << 20, 1, 700'000, 4096, 1 << 20};
  std::vector<Buffer> buffers;
  for (const std::size_t bytes : sizes) buffers.emplace_back(bytes);
  for (std::uint32_t i = 0; i < buffers.size(); ++i) {
    REQUIRE(lab.gateway->ask(i, LinkLab::read(i % 2 == 0 ? 1 : i, buffers[i].bytes())));
  }
  REQUIRE(lab.until([&] { return lab.ear.answers.size() == buffers.size(); }));
  for (std::uint32_t i = 0; i < buffers.size(); ++i) {
    CAPTURE(i);
    CHECK(lab.ear.answers.at(i).intact);
    CHECK(holds(buffers[i].bytes(), i % 2 == 0 ? 1 : i, 0));
    CHECK(buffers[i].guards_stand());
  }
}

TEST_CASE("a file that changed or shrank before it was sent brings no wrong bytes") {
  for (const bool shrinks : {false, true}) {
    CAPTURE(shrinks);
    const UniqueFd file = file_with(1, 0, 500'000);
    ScriptedTarget target([&](TargetLink& link, const wire::Request& request) {
      wire::Answer answer;
      answer.slot = request.slot;
      answer.bytes = request.length_bytes;
      answer.total_bytes = request.length_bytes;
      std::vector<std::byte> same(request.length_bytes);
      fill(same, 1, 0);
      link.answer(answer, {crc32c(same), file.get(), 0});
      if (shrinks) {
        REQUIRE(::ftruncate(file.get(), 300'000) == 0);
      } else {
        REQUIRE(::pwrite(file.get(), "changed", 7, 400'000) == 7);
      }
    });
    LinkLab lab(target);
    Buffer buffer(500'000);
    REQUIRE(lab.gateway->ask(1, LinkLab::read(1, buffer.bytes())));
    if (shrinks) {
      REQUIRE(lab.until([&] { return !lab.ear.losses.empty(); }));
      CHECK(std::string(lab.target->why_broken()).find("file") != std::string::npos);
      CHECK(lab.ear.answers.empty());
    } else {
      REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
      CHECK_FALSE(lab.ear.answers.at(1).intact);
    }
  }
}

TEST_CASE("requests come as they were asked, with their token") {
  ScriptedTarget target;
  LinkLab lab(target);
  Buffer buffer(100);
  LinkRead read = LinkLab::read(42, buffer.bytes(), 1000);
  read.stat = true;
  read.token = "a.b.c";
  REQUIRE(lab.gateway->ask(1, read));
  REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
  const wire::Request& asked = target.requests.at(0);
  CHECK(asked.kind == wire::RequestKind::kStat);
  CHECK(asked.volume == 3);
  CHECK(asked.needle == 42);
  CHECK(asked.cookie == 7);
  CHECK(asked.offset_bytes == 1000);
  CHECK(asked.length_bytes == 100);
  CHECK(asked.timeout_us == 1'000'000);
  CHECK(target.tokens.at(0) == "a.b.c");
  read.token = std::string_view(reinterpret_cast<const char*>(buffer.memory.data()), 0);
  const std::string long_token(wire::kMostTokenBytes + 1, 't');
  read.token = long_token;
  CHECK_FALSE(lab.gateway->ask(2, read));
}

TEST_CASE("as many requests as credits at once, each answered once, in any order") {
  std::deque<wire::Request> waiting;
  ScriptedTarget target(
      [&](TargetLink&, const wire::Request& request) { waiting.push_back(request); });
  LinkLab lab(target);
  std::vector<Buffer> buffers(9, Buffer(3000));
  for (std::uint32_t owner = 0; owner < 8; ++owner) {
    REQUIRE(lab.gateway->ask(owner, LinkLab::read(owner, buffers[owner].bytes())));
  }
  CHECK_FALSE(lab.gateway->ask(8, LinkLab::read(8, buffers[8].bytes())));
  REQUIRE(lab.until([&] { return waiting.size() == 8; }));
  while (!waiting.empty()) {
    ScriptedTarget::answer_whole(*lab.target, waiting.back());
    waiting.pop_back();
  }
  REQUIRE(lab.until([&] { return lab.ear.answers.size() == 8; }));
  for (std::uint32_t owner = 0; owner < 8; ++owner) CHECK(holds(buffers[owner].bytes(), owner, 0));
  CHECK(lab.gateway->ask(8, LinkLab::read(8, buffers[8].bytes())));
  CHECK(buffers[8].untouched());
}

TEST_CASE("errors come without bytes") {
  ScriptedTarget target([](TargetLink& link, const wire::Request& request) {
    wire::Answer answer;
    answer.slot = request.slot;
    answer.status = KELP_NOT_FOUND;
    answer.bytes = 50;  // not sent
    link.answer(answer);
  });
  LinkLab lab(target);
  Buffer buffer(100);
  REQUIRE(lab.gateway->ask(1, LinkLab::read(1, buffer.bytes())));
  REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
  CHECK(lab.ear.answers.at(1).answer.status == KELP_NOT_FOUND);
  CHECK(lab.ear.answers.at(1).answer.bytes == 0);
  CHECK(buffer.untouched());
}

TEST_CASE("who gives up is not told, its buffer stays as it is, and its slot comes back") {
  std::deque<wire::Request> waiting;
  ScriptedTarget target(
      [&](TargetLink&, const wire::Request& request) { waiting.push_back(request); });
  target.answers_cancels = false;
  LinkLab lab(target, LinkLab::agreed(1));
  for (const std::size_t bytes : {100, 100'000}) {
    Buffer buffer(bytes);
    const auto slot = lab.gateway->ask(1, LinkLab::read(1, buffer.bytes()));
    REQUIRE(slot);
    REQUIRE(lab.until([&] { return !waiting.empty(); }));
    CHECK(lab.gateway->let_go(*slot));  // nothing of it has come
    REQUIRE(lab.until([&] { return target.cancels > 0; }));
    CHECK_FALSE(lab.gateway->ask(2, LinkLab::read(2, buffer.bytes())));
    ScriptedTarget::answer_whole(*lab.target, waiting.front());  // late, and whole all the same
    REQUIRE(lab.until([&] { return lab.gateway->in_flight() == 0; }));
    CHECK(lab.ear.late > 0);
    CHECK(buffer.untouched());
    CHECK(lab.ear.answers.empty());
    waiting.clear();
    target.cancels = 0;
    Buffer again(bytes);
    REQUIRE(lab.gateway->ask(2, LinkLab::read(2, again.bytes())));
    REQUIRE(lab.until([&] { return !waiting.empty(); }));
    ScriptedTarget::answer_whole(*lab.target, waiting.front());
    REQUIRE(lab.until([&] { return lab.ear.answers.contains(2); }));
    CHECK(holds(again.bytes(), 2, 0));
    lab.ear.answers.clear();
    waiting.clear();
  }
}

TEST_CASE("a cancelled request is answered at once by a target that minds it") {
  ScriptedTarget target([](TargetLink&, const wire::Request&) {});
  LinkLab lab(target, LinkLab::agreed(1));
  Buffer buffer(100);
  const auto slot = lab.gateway->ask(1, LinkLab::read(1, buffer.bytes()));
  REQUIRE(lab.until([&] { return !target.requests.empty(); }));
  lab.gateway->let_go(*slot);
  REQUIRE(lab.until([&] { return lab.gateway->in_flight() == 0; }));
  CHECK(lab.ear.answers.empty());
}

TEST_CASE("a buffer is its owner's at once when it is let go, also in the middle of its payload") {
  for (const bool goes_on : {true, false}) {
    CAPTURE(goes_on);
    Alone alone;
    Buffer buffer(500'000);
    const auto slot = alone.link->ask(9, LinkLab::read(9, buffer.bytes()));
    const auto answer = alone.answer_to(alone.next_request(), 500'000);
    const auto half = std::span(answer).first(answer.size() / 2);
    send_raw(alone.peer.get(), half);
    REQUIRE(alone.until([&] { return buffer.bytes()[100'000] != kCanary; }));
    CHECK(alone.link->let_go(*slot));
    const std::vector<std::byte> as_let_go = buffer.memory;
    if (goes_on) {
      send_raw(alone.peer.get(), std::span(answer).subspan(half.size()));
      REQUIRE(alone.until([&] { return alone.link->in_flight() == 0; }));
    } else {
      alone.link->fence();
      REQUIRE(alone.until([&] { return alone.link->fenced(); }));
    }
    for (int i = 0; i < 1000; ++i) alone.transport->poll();
    CHECK(buffer.memory == as_let_go);
    CHECK(alone.ear.answers.empty());
    CHECK(alone.ear.losses.empty());
    CHECK(alone.ear.releases.empty());
  }
}

TEST_CASE("when the peer goes, or the link is fenced, each request is lost once") {
  for (const bool peer_goes : {true, false}) {
    Alone alone;
    Buffer first(1000);
    Buffer second(1000);
    Buffer third(1000);
    alone.link->ask(1, LinkLab::read(1, first.bytes()));
    alone.link->ask(2, LinkLab::read(2, second.bytes()));
    const auto given_up = alone.link->ask(3, LinkLab::read(3, third.bytes()));
    alone.next_request();
    alone.link->let_go(*given_up);
    if (peer_goes) {
      alone.peer.reset();
    } else {
      alone.link->fence();
    }
    REQUIRE(alone.until([&] { return alone.link->fenced(); }));
    std::ranges::sort(alone.ear.losses);
    CHECK(alone.ear.losses == std::vector<std::uint32_t>{1, 2});
    CHECK(alone.ear.releases.empty());
    CHECK_FALSE(alone.link->ask(4, LinkLab::read(4, first.bytes())));
    CHECK(first.untouched());
  }
}

TEST_CASE("a payload whose checksum does not fit is said to be none") {
  for (const std::uint32_t bytes : {1000U, 200'000U}) {
    Alone alone;
    Buffer buffer(bytes);
    alone.link->ask(1, LinkLab::read(1, buffer.bytes()));
    auto answer = alone.answer_to(alone.next_request(), bytes);
    answer.back() ^= std::byte{1};
    send_raw(alone.peer.get(), answer);
    REQUIRE(alone.until([&] { return !alone.ear.answers.empty(); }));
    CHECK_FALSE(alone.ear.answers.at(1).intact);
    CHECK_FALSE(alone.link->ending());  // the stream is in step
    if (bytes == 1000) CHECK(buffer.untouched());
    CHECK(buffer.guards_stand());
  }
}

TEST_CASE("answers nobody asked for, twice, too long or in pieces of nonsense end the link") {
  const auto ends = [](auto&& tell) {
    Alone alone;
    Buffer buffer(1000);
    alone.link->ask(1, LinkLab::read(1, buffer.bytes()));
    const wire::Request request = alone.next_request();
    tell(alone, request);
    CHECK(alone.until([&] { return alone.link->ending(); }));
    CHECK(alone.until([&] { return alone.link->fenced(); }));
    CHECK(alone.ear.answers.size() + alone.ear.losses.size() == 1);
    CHECK(buffer.guards_stand());
  };
  ends([](Alone& alone, wire::Request request) {
    request.generation ^= 1;
    send_raw(alone.peer.get(), alone.answer_to(request, 10));
  });
  ends([](Alone& alone, wire::Request request) {
    request.slot ^= 1;
    send_raw(alone.peer.get(), alone.answer_to(request, 10));
  });
  ends([](Alone& alone, const wire::Request& request) {
    send_raw(alone.peer.get(), alone.answer_to(request, 10));
    send_raw(alone.peer.get(), alone.answer_to(request, 10));
  });
  ends([](Alone& alone, const wire::Request& request) {
    send_raw(alone.peer.get(), alone.answer_to(request, 1001));
  });
  ends([](Alone& alone, const wire::Request&) {
    send_raw(alone.peer.get(), std::vector<std::byte>(600, std::byte{'G'}));
  });
  ends([](Alone& alone, const wire::Request&) {
    wire::Request back;
    back.length_bytes = 1;
    wire::seal(back, wire::FrameKind::kRequest);
    send_raw(alone.peer.get(), std::as_bytes(std::span(&back, 1)));
  });
}

TEST_CASE("a target ends a link that uses a slot twice, or asks for more than was granted") {
  const auto ends = [](std::initializer_list<wire::Request> requests,
                       std::chrono::milliseconds within = std::chrono::seconds(20)) {
    ScriptedTarget user([](TargetLink&, const wire::Request&) {});
    const auto transport = TcpTransport::create().value();
    TcpPair pair;
    TcpTargetLink& link =
        transport->add_target(std::move(pair.b), LinkLab::agreed(2, 4096), {}, user);
    link.start();
    for (wire::Request request : requests) {
      wire::seal(request, wire::FrameKind::kRequest);
      send_raw(pair.a.get(), std::as_bytes(std::span(&request, 1)));
    }
    const auto end = std::chrono::steady_clock::now() + within;
    while (!link.broken() && std::chrono::steady_clock::now() < end) transport->poll();
    const bool ended = link.broken();
    link.fence();
    while (!link.fenced()) transport->poll();
    return ended;
  };
  wire::Request request;
  request.length_bytes = 4096;
  wire::Request again = request;
  again.generation = 1;
  wire::Request other = request;
  other.slot = 1;
  wire::Request beyond = request;
  beyond.slot = 2;
  wire::Request longer = request;
  longer.length_bytes = 4097;
  CHECK_FALSE(ends({request, other}, std::chrono::milliseconds(300)));
  CHECK(ends({request, again}));
  CHECK(ends({beyond}));
  CHECK(ends({longer}));
}

TEST_CASE("a draining target answers what is under way and is asked nothing new") {
  std::deque<wire::Request> waiting;
  ScriptedTarget target(
      [&](TargetLink&, const wire::Request& request) { waiting.push_back(request); });
  LinkLab lab(target);
  Buffer buffer(1000);
  REQUIRE(lab.gateway->ask(1, LinkLab::read(1, buffer.bytes())));
  REQUIRE(lab.until([&] { return !waiting.empty(); }));
  lab.target->drain();
  REQUIRE(lab.until([&] { return lab.gateway->ending(); }));
  CHECK_FALSE(lab.gateway->ask(2, LinkLab::read(2, buffer.bytes())));
  ScriptedTarget::answer_whole(*lab.target, waiting.front());
  REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
  CHECK(holds(buffer.bytes(), 1, 0));
}

TEST_CASE("an armed transport wakes who sleeps, a disarmed one does not") {
  ScriptedTarget target;
  LinkLab lab(target);
  for (int i = 0; i < 100; ++i) lab.turn();
  const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  REQUIRE(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, lab.there->fd(), &event) == 0);
  while (::epoll_wait(epoll.get(), &event, 1, 0) > 0) {
  }
  std::vector<Buffer> buffers(4, Buffer(100));
  for (const bool armed : {true, false, true}) {
    lab.there->arm(armed);
    const auto owner = static_cast<std::uint32_t>(lab.ear.answers.size());
    REQUIRE(lab.gateway->ask(owner, LinkLab::read(owner, buffers[owner].bytes())));
    lab.gateway->flush();
    lab.here->poll();  // only the gateway's side runs: the target sleeps
    CHECK((::epoll_wait(epoll.get(), &event, 1, armed ? 5000 : 50) == 1) == armed);
    CHECK(lab.there->has_work());
    REQUIRE(lab.until([&] { return lab.ear.answers.contains(owner); }));
    while (::epoll_wait(epoll.get(), &event, 1, 0) > 0) {
    }
  }
}

TEST_CASE("a link with nothing to do costs no system call") {
  ScriptedTarget target;
  LinkLab lab(target);
  Buffer buffer(100);
  lab.gateway->ask(1, LinkLab::read(1, buffer.bytes()));
  REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
  for (int i = 0; i < 100; ++i) lab.turn();
  const std::uint64_t before = lab.here->uring().enters() + lab.there->uring().enters();
  for (int i = 0; i < 10'000; ++i) lab.turn();
  CHECK(lab.here->uring().enters() + lab.there->uring().enters() == before);
}

namespace {

/// Reads until both ends ask that connection themselves.
void make_busy(LinkLab& lab, Buffer& buffer) {
  std::uint32_t owner = 1000;
  for (int i = 0; i < 200; ++i, ++owner) {
    REQUIRE(lab.gateway->ask(owner, LinkLab::read(owner, buffer.bytes())));
    REQUIRE(lab.until([&] { return lab.ear.answers.contains(owner); }));
  }
}

}  // namespace

TEST_CASE("the io_uring tells nothing of a connection that everything comes from") {
  ScriptedTarget target;
  LinkLab lab(target);
  Buffer buffer(4096);
  make_busy(lab, buffer);
  const std::uint64_t before = lab.here->uring().enters() + lab.there->uring().enters();
  lab.ear.answers.clear();
  make_busy(lab, buffer);
  CHECK(lab.here->uring().enters() + lab.there->uring().enters() == before);
  CHECK(holds(buffer.bytes(), 1199, 0));
}

TEST_CASE("a connection that was busy wakes who sleeps, at once and after a rest") {
  for (const int turns : {0, 1000}) {
    ScriptedTarget target;
    LinkLab lab(target);
    const UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    REQUIRE(::epoll_ctl(epoll.get(), EPOLL_CTL_ADD, lab.there->fd(), &event) == 0);
    Buffer buffer(100);
    make_busy(lab, buffer);
    for (int i = 0; i < turns; ++i) lab.turn();
    lab.there->arm(true);
    while (lab.there->poll() > 0 || lab.there->has_work()) {
    }
    while (::epoll_wait(epoll.get(), &event, 1, 0) > 0) {
    }
    REQUIRE(lab.gateway->ask(1, LinkLab::read(1, buffer.bytes())));
    lab.gateway->flush();
    CHECK(::epoll_wait(epoll.get(), &event, 1, 5000) == 1);
    REQUIRE(lab.until([&] { return lab.ear.answers.contains(1); }));
  }
}

TEST_CASE("others are heard beside a busy connection") {
  ScriptedTarget target;
  LinkLab lab(target);
  GatewayEar ear;
  TcpPair pair;
  TcpGatewayLink& quiet = lab.here->add_gateway(std::move(pair.a), lab.agreement, {}, ear);
  TcpTargetLink& asked = lab.there->add_target(std::move(pair.b), lab.agreement, {}, target);
  quiet.start();
  asked.start();
  Buffer buffer(100);
  Buffer other(100);
  make_busy(lab, buffer);
  std::uint32_t owner = 5000;
  REQUIRE(quiet.ask(1, LinkLab::read(1, other.bytes())));
  REQUIRE(lab.until([&] {
    quiet.flush();
    asked.flush();
    if (lab.gateway->in_flight() == 0) lab.gateway->ask(owner, LinkLab::read(1, buffer.bytes()));
    ++owner;
    return ear.answers.contains(1);
  }));
  quiet.fence();
  asked.fence();
  REQUIRE(lab.until([&] { return quiet.fenced() && asked.fenced(); }));
}

TEST_CASE("a busy connection that ends loses each request once") {
  for (const bool peer_goes : {true, false}) {
    ScriptedTarget target;
    LinkLab lab(target);
    Buffer buffer(100);
    make_busy(lab, buffer);
    target.behave = [](TargetLink&, const wire::Request&) {};
    REQUIRE(lab.gateway->ask(1, LinkLab::read(1, buffer.bytes())));
    REQUIRE(lab.until([&] { return lab.target->in_flight() == 1; }));
    if (peer_goes) {
      lab.target->fence();
    } else {
      lab.gateway->fence();
    }
    REQUIRE(lab.until([&] { return lab.gateway->fenced(); }));
    CHECK(lab.ear.losses == std::vector<std::uint32_t>{1});
    TcpPair pair;
    TcpGatewayLink* const ended = lab.gateway;
    lab.gateway = &lab.here->add_gateway(std::move(pair.a), lab.agreement, {}, lab.ear);
    lab.gateway->start();
    lab.here->remove(*ended);  // which nobody asks any more
    REQUIRE(lab.until([&] { return lab.target->fenced(); }));
  }
}
