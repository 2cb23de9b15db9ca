// The core promise, with a writer that pauses for nobody but a reader that got no turn: an append
// that returned before refresh() began is there when refresh() answers "current".
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <thread>

#include "support/volume_opening.h"
#include "support/volume_writer.h"

using kelp::NeedleId;
using kelp::OffsetWidth;
using kelp::Volume;
using kelp::test::must_open;
using kelp::test::TempDir;
using kelp::test::VolumeWriter;
using Freshness = kelp::Volume::Freshness;

namespace {

constexpr std::uint64_t kRows = 100'000;
constexpr std::uint64_t kRefreshes = 100;  // that answer "current": more are asked for

struct Observed {
  std::uint64_t current = 0;
  std::uint64_t behind = 0;
  std::uint64_t replaced = 0;
  std::uint64_t missed = 0;
  /// Appends that took so long that the index may be taken for replaced: the machine stood still.
  std::uint64_t stalled = 0;
};

/// A reader that hardly gets a turn would see too little of the race. Not for ever: a reader that
/// never is current is to be told.
void wait_for_reader(const std::atomic<std::uint64_t>& current) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (current.load(std::memory_order_relaxed) <= kRefreshes &&
         std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

/// One writer appends rows of ids 1, 2, ... and says how far it got; every third id is deleted
/// again right after. The reader holds each "current" against what was said before it asked.
Observed race(const std::filesystem::path& parent, OffsetWidth width) {
  TempDir dir(parent);
  VolumeWriter writer(dir.path(), {.width = width});
  std::unique_ptr<Volume> volume = must_open(writer.paths());
  std::atomic<std::uint64_t> acknowledged{0};
  std::atomic<std::uint64_t> current{0};
  std::uint64_t stalled = 0;
  std::thread server([&] {
    using Clock = std::chrono::steady_clock;
    for (std::uint64_t id = 1; id <= kRows; ++id) {
      const Clock::time_point began = Clock::now();
      writer.append_row({NeedleId{id}, 8 * id, 0});
      if (id % 3 == 0) writer.append_row({NeedleId{id}, 8 * id, -1});
      if (Clock::now() - began > std::chrono::milliseconds(150)) stalled += 2;
      // release pairs with the acquire below: what was appended before is in the file.
      acknowledged.store(id, std::memory_order_release);
      if (id == kRows / 2) wait_for_reader(current);
    }
  });
  Observed observed;
  std::uint64_t promised = 0;
  while (promised < kRows) {
    promised = acknowledged.load(std::memory_order_acquire);
    Freshness freshness = volume->refresh();
    while (freshness == Freshness::kBehind) {
      ++observed.behind;
      freshness = volume->refresh();
    }
    if (freshness == Freshness::kReplaced) {
      ++observed.replaced;
      volume = must_open(writer.paths());
      promised = 0;
      continue;
    }
    if (freshness != Freshness::kCurrent) {
      promised = 0;
      continue;
    }
    ++observed.current;
    current.store(observed.current, std::memory_order_relaxed);  // a counter; orders nothing
    // The newest few are what a race would lose.
    for (std::uint64_t id = promised; id > 0 && promised - id < 4; --id) {
      if (volume->find(NeedleId{id}).has_value() != (id % 3 != 0)) ++observed.missed;
    }
  }
  server.join();
  observed.stalled = stalled;
  for (std::uint64_t id = 1; id <= kRows; ++id) {
    if (volume->find(NeedleId{id}).has_value() != (id % 3 != 0)) ++observed.missed;
  }
  return observed;
}

void check_race(const std::filesystem::path& parent) {
  for (const OffsetWidth width : {OffsetWidth::kFour, OffsetWidth::kFive}) {
    const Observed observed = race(parent, width);
    MESSAGE("current " << observed.current << ", behind " << observed.behind << ", replaced "
                       << observed.replaced);
    CHECK(observed.missed == 0);
    CHECK(observed.current > kRefreshes);
    CHECK(observed.replaced <= 2 + observed.stalled);
  }
}

}  // namespace

TEST_CASE("a refresh beside a busy writer misses nothing and replaces nothing") {
  check_race(std::filesystem::temp_directory_path());
}

TEST_CASE("a refresh beside a busy writer on tmpfs misses nothing and replaces nothing") {
  if (!std::filesystem::is_directory("/dev/shm")) return;
  check_race("/dev/shm");
}
