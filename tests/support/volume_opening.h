// Runs an open to its end, and brings a volume up to date, as loader and worker do.
#pragma once

#include <doctest/doctest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "dataplane/volume/volume.h"
#include "dataplane/volume/volume_open.h"
#include "support/volume_writer.h"

namespace kelp::test {

struct Opened {
  std::unique_ptr<Volume> volume;
  OpenFailure failure;  ///< where there is no volume
  int turns = 0;
};

inline Opened try_open(const VolumePaths& paths, VolumeId id = VolumeId{7}) {
  VolumeOpen open(id, paths, std::make_shared<VolumeCounters>());
  Opened opened;
  while (true) {
    ++opened.turns;
    switch (open.step()) {
      case VolumeOpen::Turn::kMore:
        continue;
      case VolumeOpen::Turn::kDone:
        opened.volume = open.take();
        return opened;
      case VolumeOpen::Turn::kFailed:
        opened.failure = open.failure();
        return opened;
    }
  }
}

inline std::unique_ptr<Volume> must_open(const VolumePaths& paths) {
  Opened opened = try_open(paths);
  INFO(opened.failure.reason);
  REQUIRE(opened.volume != nullptr);
  return std::move(opened.volume);
}

/// Calls again while there is more to replay, or a write seems under way.
inline Volume::Freshness refresh_fully(Volume& volume) {
  while (true) {
    const Volume::Freshness freshness = volume.refresh();
    if (freshness != Volume::Freshness::kBehind) return freshness;
    std::this_thread::yield();
  }
}

/// Until a time that the file system gives from here on differs from all before.
inline void let_time_pass() {
  std::this_thread::sleep_for(std::chrono::milliseconds(25));
}

}  // namespace kelp::test

template <>
struct doctest::StringMaker<kelp::Volume::Freshness> {
  static String convert(kelp::Volume::Freshness value) {
    using kelp::Volume;
    switch (value) {
      case Volume::Freshness::kCurrent:
        return "current";
      case Volume::Freshness::kBehind:
        return "behind";
      case Volume::Freshness::kReplaced:
        return "replaced";
      case Volume::Freshness::kUndecided:
        return "undecided";
    }
    return "?";
  }
};
