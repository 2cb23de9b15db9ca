// A worker that serves one small volume, pumped by the test's own thread.
#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "support/small_volume.h"
#include "support/test_daemon.h"

namespace kelp::test {

struct Served {
  explicit Served(TestDaemonOptions::Drive drive = TestDaemonOptions::Drive::kPumped,
                  std::uint64_t reload_wait_us = 1'000'000)
      : volume(dir.path(), 3) {
    options.drive = drive;
    options.worker.reload_wait_us = reload_wait_us;
    options.worker.loader.directories = {{dir.path().string(), ""}};
  }
  /// `options` are as the test wants them.
  void start() { daemon = std::make_unique<TestDaemon>(options); }
  const WorkerCounters& counters() { return daemon->worker().counters(); }

  TempDir dir;
  SmallVolume volume;
  TestDaemonOptions options;
  std::unique_ptr<TestDaemon> daemon;
};

inline bool holds(const void* buffer, const std::vector<std::byte>& data) {
  return std::memcmp(buffer, data.data(), data.size()) == 0;
}

}  // namespace kelp::test
