// A worker as the target of another host's gateway: real files, a real socket, and a gateway that
// is a few lines of this test.
#include <doctest/doctest.h>
#include <sys/socket.h>

#include <cstring>
#include <memory>
#include <vector>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/worker/worker.h"
#include "support/small_volume.h"
#include "support/tcp_pair.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;

constexpr std::uint16_t kSlots = 8;

struct Heard {
  wire::Answer answer;
  std::vector<std::byte> payload;

  bool intact() const { return crc32c(payload) == answer.crc32c; }
};

struct Target {
  explicit Target(std::uint64_t cache_bytes = 0) : volume(dir.path(), 3) {
    options.cache_bytes = cache_bytes;
    options.loader.directories = {{dir.path().string(), ""}};
  }
  void start() {
    worker = std::make_unique<Worker>(options);
    TcpPair pair;
    auto link = std::make_unique<NewLink>();
    link->socket = std::move(pair.a);
    link->agreement.version = 1;
    link->agreement.slots = kSlots;
    link->agreement.max_slice_bytes = wire::kMostSliceBytes;
    gateway = std::move(pair.b);
    REQUIRE(worker->add_link(std::move(link)));
    // Until the volume is served.
    REQUIRE(eventually([&] { return read({3, 2, 1}).answer.status != KELP_UNAVAILABLE; }));
  }
  ~Target() { gateway.reset(); }

  static wire::Request request(std::uint16_t slot, kelp_fid fid, std::uint64_t offset = 0,
                               std::uint32_t length = wire::kMostSliceBytes) {
    wire::Request made;
    made.slot = slot;
    made.volume = fid.volume;
    made.needle = fid.needle;
    made.cookie = fid.cookie;
    made.offset_bytes = offset;
    made.length_bytes = length;
    made.timeout_us = 5'000'000;
    return made;
  }
  void say(wire::Request wanted) {
    wanted.generation = ++generations[wanted.slot];
    wire::seal(wanted, wire::FrameKind::kRequest);
    say(std::as_bytes(std::span(&wanted, 1)));
  }
  void cancel(std::uint16_t slot) {
    wire::Cancel frame;
    frame.slot = slot;
    frame.generation = generations[slot];
    wire::seal(frame, wire::FrameKind::kCancel);
    say(std::as_bytes(std::span(&frame, 1)));
  }
  void say(std::span<const std::byte> bytes) {
    REQUIRE(::send(gateway.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
            static_cast<ssize_t>(bytes.size()));
  }
  /// The next answer, whole.
  Heard hear() {
    Heard heard;
    take(std::as_writable_bytes(std::span(&heard.answer, 1)));
    REQUIRE(wire::read_answer(std::as_bytes(std::span(&heard.answer, 1)), kSlots));
    heard.payload.resize(heard.answer.bytes);
    take(heard.payload);
    return heard;
  }
  Heard read(kelp_fid fid, std::uint64_t offset = 0, std::uint32_t length = wire::kMostSliceBytes) {
    say(request(0, fid, offset, length));
    return hear();
  }
  void take(std::span<std::byte> to) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!to.empty()) {
      REQUIRE(std::chrono::steady_clock::now() < end);
      worker->poll_once();
      const ssize_t got = ::recv(gateway.get(), to.data(), to.size(), MSG_DONTWAIT);
      if (got > 0) to = to.subspan(static_cast<std::size_t>(got));
    }
  }

  TempDir dir;
  SmallVolume volume;
  WorkerOptions options;
  std::unique_ptr<Worker> worker;
  UniqueFd gateway;
  std::uint8_t generations[kSlots] = {};
};

}  // namespace

TEST_CASE("needles of every size go to the gateway with their checksum, and parts of them") {
  Target target;
  target.volume.put(1, 2, pattern(10, 1));
  std::uint64_t needle = 1;
  target.start();
  for (const std::size_t length : {1, 4096, 20'000, 262'143, 262'144, 300'000, 1'000'000}) {
    CAPTURE(length);
    const auto data = pattern(length, ++needle);
    const kelp_fid fid = target.volume.put(needle, 2, data);
    const Heard whole = target.read(fid);
    REQUIRE(whole.answer.status == KELP_OK);
    CHECK(whole.answer.total_bytes == length);
    CHECK((whole.answer.flags & KELP_FLAG_CRC_VERIFIED) != 0);
    CHECK(whole.intact());
    CHECK(whole.payload == data);
    const Heard part = target.read(fid, length / 3, static_cast<std::uint32_t>(length / 2 + 1));
    REQUIRE(part.answer.status == KELP_OK);
    CHECK(part.intact());
    CHECK(part.payload ==
          std::vector<std::byte>(data.begin() + static_cast<std::ptrdiff_t>(length / 3),
                                 data.begin() + static_cast<std::ptrdiff_t>(std::min(
                                                    length, length / 3 + length / 2 + 1))));
  }
}

TEST_CASE("a needle longer than a slice comes in slices that name the same record") {
  Target target;
  target.volume.put(1, 2, pattern(10, 1));
  const auto data = pattern(2'500'000, 7);
  const kelp_fid fid = target.volume.put(2, 2, data);
  target.start();
  std::vector<std::byte> all;
  std::uint64_t source = 0;
  while (all.size() < data.size()) {
    const Heard slice = target.read(fid, all.size());
    REQUIRE(slice.answer.status == KELP_OK);
    REQUIRE(slice.intact());
    if (!all.empty()) CHECK(slice.answer.source == source);
    source = slice.answer.source;
    all.insert(all.end(), slice.payload.begin(), slice.payload.end());
  }
  CHECK(all == data);
  CHECK(target.read({3, 2, 1}).answer.source != source);
}

TEST_CASE("more than a socket holds is answered to a gateway that listens late") {
  Target target;
  target.volume.put(1, 2, pattern(10, 1));
  const auto data = pattern(1'000'000, 7);
  const kelp_fid fid = target.volume.put(2, 2, data);
  target.start();
  for (std::uint16_t slot = 0; slot < kSlots; ++slot) target.say(Target::request(slot, fid));
  for (int i = 0; i < 20'000; ++i) target.worker->poll_once();
  for (int i = 0; i < kSlots; ++i) {
    const Heard heard = target.hear();
    REQUIRE(heard.answer.status == KELP_OK);
    REQUIRE(heard.payload == data);
  }
}

TEST_CASE("a needle kept in memory is answered as one that is read") {
  Target target(1 << 20);
  const auto data = pattern(4096, 1);
  const kelp_fid fid = target.volume.put(1, 2, data);
  target.start();
  const Heard first = target.read(fid);
  for (int i = 0; i < 4; ++i) {
    const Heard again = target.read(fid);
    CHECK(again.payload == data);
    CHECK(again.intact());
    CHECK(again.answer.source == first.answer.source);
  }
  CHECK(target.worker->counters().cache_hits.value() > 0);
  const Heard part = target.read(fid, 1000, 100);
  CHECK(part.intact());
  CHECK(part.answer.bytes == 100);
}

TEST_CASE("what is not there, of another cookie or beyond the end is said") {
  Target target;
  const kelp_fid fid = target.volume.put(1, 2, pattern(10, 1));
  target.start();
  CHECK(target.read({3, 2, 99}).answer.status == KELP_NOT_FOUND);
  CHECK(target.read({3, 1, 1}).answer.status == KELP_WRONG_COOKIE);
  const Heard beyond = target.read(fid, 11);
  CHECK(beyond.answer.status == KELP_RANGE);
  CHECK(beyond.answer.total_bytes == 10);
  CHECK(target.read({4, 2, 1}).answer.status == KELP_UNAVAILABLE);
}

TEST_CASE("a cancelled request is answered at once, without its bytes") {
  Target target;
  const auto data = pattern(1'000'000, 1);
  const kelp_fid fid = target.volume.put(1, 2, data);
  target.start();
  // Both are taken in one turn, before anything is read.
  target.say(Target::request(1, fid));
  target.cancel(1);
  const Heard cancelled = target.hear();
  CHECK(cancelled.answer.slot == 1);
  CHECK(cancelled.answer.status == KELP_DEADLINE);
  CHECK(cancelled.payload.empty());
  target.cancel(1);  // crossed with its answer
  target.say(Target::request(1, fid));
  CHECK(target.hear().payload == data);
}
