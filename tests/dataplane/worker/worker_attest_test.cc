// Volumes of a volume server: served on its word, and not a read longer.
#include <doctest/doctest.h>
#include <fcntl.h>

#include <cstring>

#include "support/raw_client.h"
#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace {

using namespace kelp;
using namespace kelp::test;

/// A worker beside `servers` volume servers, which the test speaks for. Server n has volume 3 in a
/// directory of its own.
struct Served {
  explicit Served(std::uint32_t servers = 1) : dirs(servers) {
    for (std::uint32_t i = 0; i < servers; ++i) {
      pulses.push_back(std::make_shared<ServerPulse>());
      volumes.push_back(std::make_unique<SmallVolume>(dirs[i].path(), 3));
      options.worker.loader.directories.push_back(
          {dirs[i].path().string(), "", i + 1, 0, pulses.back()});
    }
  }
  void start() { daemon = std::make_unique<TestDaemon>(options); }

  /// The attestation of server n's volume, once its files are watched.
  std::shared_ptr<Attestation> watched(std::uint32_t server = 1) {
    std::shared_ptr<Attestation> found;
    REQUIRE(eventually([&] {
      const auto all = daemon->worker().loader().catalog().attestations(server);
      if (all.empty() || all[0]->ticket() == 0) return false;
      found = all[0];
      return true;
    }));
    return found;
  }
  void attest(std::uint32_t server = 1) {
    const auto attestation = watched(server);
    pulses[server - 1]->trusted_until = UINT64_MAX;
    attestation->attest(attestation->ticket());
  }
  std::string idx(std::uint32_t server = 1) const {
    return (dirs[server - 1].path() / "3.idx").string();
  }

  std::vector<TempDir> dirs;
  std::vector<std::shared_ptr<ServerPulse>> pulses;
  std::vector<std::unique_ptr<SmallVolume>> volumes;
  TestDaemonOptions options;
  std::unique_ptr<TestDaemon> daemon;
};

void close_for_writing(const std::string& path) {
  const UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  REQUIRE(fd);
}

TEST_CASE("a volume of a server is served from the server's word to the close of its files") {
  Served served;
  const auto data = pattern(100, 1);
  const kelp_fid fid = served.volumes[0]->put(1, 2, data);
  served.start();
  TestClient client(*served.daemon);
  served.watched();
  CHECK(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
  served.attest();
  REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  CHECK(std::memcmp(client.buffer, data.data(), data.size()) == 0);
  for (int i = 0; i < 50; ++i) {
    close_for_writing(served.idx());
    REQUIRE(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
    served.attest();
    REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  }
  CHECK(served.daemon->worker().counters().revocations.value() == 50);
}

TEST_CASE("a server that is silent for too long is not vouching any more") {
  Served served;
  const kelp_fid fid = served.volumes[0]->put(1, 2, pattern(100, 1));
  served.start();
  TestClient client(*served.daemon);
  served.attest();
  REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  served.pulses[0]->trusted_until = ticks_now();
  CHECK(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
  served.pulses[0]->trusted_until = UINT64_MAX;
  CHECK(client.run(client.read(fid)).status == KELP_OK);
}

TEST_CASE("where the server wants tokens, a read without one is DENIED") {
  Served served;
  const kelp_fid fid = served.volumes[0]->put(1, 2, pattern(100, 1));
  SUBCASE("always") {}
  SUBCASE("but not if local clients are trusted") {
    served.options.worker.trust_local_clients = true;
  }
  served.start();
  TestClient client(*served.daemon);
  served.attest();
  REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  served.pulses[0]->wants_token = true;
  const bool trusted = served.options.worker.trust_local_clients;
  CHECK(client.run(client.read(fid)).status == (trusted ? KELP_OK : KELP_DENIED));
  // Also of a needle that is not there: the server would not say so either.
  kelp_fid absent = fid;
  absent.needle = 99;
  CHECK(client.run(client.read(absent)).status == (trusted ? KELP_NOT_FOUND : KELP_DENIED));
}

TEST_CASE("of two servers with one volume, the one that vouches serves it") {
  Served served(2);
  const kelp_fid fid = served.volumes[0]->put(1, 2, pattern(100, 1));
  served.volumes[1]->put(1, 2, pattern(200, 1));
  served.start();
  TestClient client(*served.daemon);
  served.watched(1);
  served.attest(2);
  CHECK(client.run(client.read(fid)).total == 200);
  served.attest(1);
  CHECK(client.run(client.read(fid)).total == 100);
  close_for_writing(served.idx(1));
  CHECK(client.run(client.read(fid)).total == 200);
  close_for_writing(served.idx(2));
  CHECK(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
}

TEST_CASE("an unattested copy does not stand in for a volume whose server has stopped vouching") {
  Served served;
  const kelp_fid fid = served.volumes[0]->put(1, 2, pattern(100, 1));
  TempDir backup;
  SmallVolume copy(backup.path(), 3);
  copy.put(1, 2, pattern(200, 1));
  served.options.worker.loader.directories.push_back({backup.path().string(), ""});
  served.start();
  TestClient client(*served.daemon);
  served.attest();
  CHECK(client.run(client.read(fid)).total == 100);
  close_for_writing(served.idx());
  CHECK(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
}

TEST_CASE("a volume that was replaced waits for the server's word anew") {
  Served served;
  const kelp_fid fid = served.volumes[0]->put(1, 2, pattern(100, 1));
  served.start();
  TestClient client(*served.daemon);
  served.attest();
  const auto before = served.watched();
  REQUIRE(client.run(client.read(fid)).status == KELP_OK);
  std::filesystem::rename(served.idx(), served.idx() + ".old");
  std::filesystem::copy_file(served.idx() + ".old", served.idx());
  REQUIRE(eventually([&] { return client.run(client.read(fid)).status == KELP_UNAVAILABLE; }));
  REQUIRE(eventually([&] { return served.watched() != before; }));
  CHECK(client.run(client.read(fid)).status == KELP_UNAVAILABLE);
  served.attest();
  CHECK(client.run(client.read(fid)).status == KELP_OK);
}

TEST_CASE("a sleeping worker wakes for a close and tells the control thread") {
  Served served;
  served.options.drive = TestDaemonOptions::Drive::kThread;
  served.start();
  served.attest();
  const std::uint64_t wishes = served.pulses[0]->wishes;
  REQUIRE(eventually([&] { return served.daemon->worker().counters().sleeps.value() > 0; }));
  close_for_writing(served.idx());
  CHECK(eventually([&] { return served.pulses[0]->wishes > wishes; }));
}

}  // namespace
