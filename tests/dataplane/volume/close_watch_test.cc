#include "dataplane/volume/close_watch.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "dataplane/volume/catalog.h"
#include "shm_ring/unique_fd.h"
#include "support/volume_writer.h"

using kelp::Attestation;
using kelp::CloseWatch;
using kelp::Ticks;
using kelp::UniqueFd;
using kelp::Volume;
using kelp::VolumeId;
using kelp::test::TempDir;
using kelp::test::VolumeWriter;

namespace {

constexpr Ticks kNow = 1000;

/// A volume of a server that has just answered, open and watched.
struct Scene {
  TempDir dir;
  VolumeWriter writer{dir.path(), {}};
  std::shared_ptr<kelp::ServerPulse> pulse = std::make_shared<kelp::ServerPulse>();
  std::unique_ptr<Volume> volume;
  CloseWatch watch;

  Scene() {
    pulse->trusted_until = kNow + 1;
    volume = open();
  }
  std::unique_ptr<Volume> open(std::uint32_t id = 7) const {
    kelp::Catalog catalog({{dir.path(), "", 1, 0, pulse}});
    catalog.scan();
    const auto attempt = catalog.begin_open({1, VolumeId{id}});
    REQUIRE(attempt != nullptr);
    while (attempt->step() == kelp::VolumeOpen::Turn::kMore) {
    }
    auto opened = attempt->take();
    catalog.opened({1, VolumeId{id}}, *opened);
    return opened;
  }
  Attestation& attestation() const { return *volume->attestation(); }
  void attest() const { attestation().attest(attestation().ticket()); }
  bool holds() {
    watch.drain();
    return attestation().holds(kNow);
  }
  void touch(const std::string& path, int flags) const {
    const UniqueFd fd(::open(path.c_str(), flags | O_CLOEXEC));
    REQUIRE(fd);
  }
};

}  // namespace

TEST_CASE("a volume is attested by an answer to a question asked after its files were watched") {
  Scene scene;
  CHECK(scene.attestation().ticket() == 0);
  CHECK_FALSE(scene.attestation().holds(kNow));
  scene.watch.add(*scene.volume);
  CHECK(scene.attestation().ticket() != 0);
  CHECK_FALSE(scene.holds());
  scene.attest();
  CHECK(scene.holds());
  scene.attestation().withdraw();
  CHECK_FALSE(scene.holds());
}

TEST_CASE("closing a file that could be written revokes, at once and until attested again") {
  Scene scene;
  scene.watch.add(*scene.volume);
  for (const std::string& path : {scene.writer.paths().idx, scene.writer.paths().dat}) {
    CAPTURE(path);
    scene.attest();
    REQUIRE(scene.holds());
    const std::uint64_t wishes = scene.pulse->wishes;
    scene.touch(path, O_RDWR);
    CHECK_FALSE(scene.holds());
    CHECK(scene.pulse->wishes > wishes);
    scene.attest();
    CHECK(scene.holds());
  }
}

TEST_CASE("an answer to a question asked before the close is void") {
  Scene scene;
  scene.watch.add(*scene.volume);
  const std::uint64_t ticket = scene.attestation().ticket();
  scene.touch(scene.writer.paths().idx, O_WRONLY);
  scene.attestation().attest(ticket);
  CHECK_FALSE(scene.holds());
}

TEST_CASE("closing a file that was only read does not revoke") {
  Scene scene;
  scene.watch.add(*scene.volume);
  scene.attest();
  scene.touch(scene.writer.paths().idx, O_RDONLY);
  scene.touch(scene.writer.paths().dat, O_RDONLY);
  CHECK(scene.holds());
}

TEST_CASE("where the server cannot write .dat either, any close of it revokes") {
  Scene scene;
  REQUIRE(::chmod(scene.writer.paths().dat.c_str(), 0444) == 0);
  scene.watch.add(*scene.volume);
  scene.attest();
  scene.touch(scene.writer.paths().dat, O_RDONLY);
  CHECK_FALSE(scene.holds());
}

TEST_CASE("a server that does not answer vouches for nothing") {
  Scene scene;
  scene.watch.add(*scene.volume);
  scene.attest();
  CHECK(scene.attestation().holds(kNow));
  CHECK_FALSE(scene.attestation().holds(kNow + 1));
}

TEST_CASE("two volumes of one file both hear of a close, and each is taken out alone") {
  Scene scene;
  const auto twin = scene.open();
  scene.watch.add(*scene.volume);
  scene.watch.add(*twin);
  scene.attest();
  twin->attestation()->attest(twin->attestation()->ticket());
  scene.touch(scene.writer.paths().idx, O_RDWR);
  CHECK_FALSE(scene.holds());
  CHECK_FALSE(twin->attestation()->holds(kNow));

  scene.watch.remove(*twin);
  scene.attest();
  CHECK(scene.holds());
  scene.touch(scene.writer.paths().idx, O_RDWR);
  CHECK_FALSE(scene.holds());
  scene.watch.remove(*scene.volume);
  CHECK(scene.watch.empty());
}

TEST_CASE("a file that is deleted, and closed by all, is nobody's any more") {
  Scene scene;
  scene.watch.add(*scene.volume);
  scene.attest();
  REQUIRE(std::filesystem::remove(scene.writer.paths().idx));
  CHECK(scene.holds());  // freshness sees to that
  scene.touch(scene.writer.paths().dat, O_RDWR);
  CHECK_FALSE(scene.holds());
}

TEST_CASE("what is left in the queue of a volume taken out does not keep its owner awake") {
  Scene scene;
  scene.watch.add(*scene.volume);
  scene.touch(scene.writer.paths().idx, O_RDWR);
  scene.watch.remove(*scene.volume);
  pollfd ready{scene.watch.fd(), POLLIN, 0};
  REQUIRE(::poll(&ready, 1, 0) == 1);
  CHECK(scene.watch.drain() == 0);
  CHECK(::poll(&ready, 1, 0) == 0);
}

TEST_CASE("events lost by the kernel revoke every volume, also those that saw none") {
  const UniqueFd limit(::open("/proc/sys/fs/inotify/max_queued_events", O_RDONLY | O_CLOEXEC));
  char text[32] = {};
  REQUIRE(::read(limit.get(), text, sizeof text - 1) > 0);
  const int most = std::atoi(text);
  if (most > 100'000) {
    MESSAGE("skipped: fs.inotify.max_queued_events is " << most);
    return;
  }
  Scene scene;
  VolumeWriter other(scene.dir.path(), {.id = 8});
  const auto busy = scene.open(8);
  scene.watch.add(*scene.volume);
  scene.watch.add(*busy);
  scene.attest();
  REQUIRE(scene.holds());
  // Equal events in a row are one, so the two files take turns.
  for (int i = 0; i <= most / 2; ++i) {
    scene.touch(other.paths().idx, O_RDWR);
    scene.touch(other.paths().dat, O_RDWR);
  }
  CHECK_FALSE(scene.holds());
}
