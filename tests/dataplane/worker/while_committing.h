// Scenes in the midst of a vacuum's commit, which the loader waits out for some 1.5 s only: then it
// gives the volume up, and the reads that waited for it are answered.
#pragma once

#include <doctest/doctest.h>

#include <chrono>

namespace kelp::test {

/// Whether the loader cannot have given up a volume whose commit began then.
inline bool is_waited_for(std::chrono::steady_clock::time_point commit_began) {
  return std::chrono::steady_clock::now() - commit_began < std::chrono::seconds(1);
}

/// Tells `scene` until all of it was seen while the volume was waited for, as it is unless this
/// machine makes a thread wait for its turn. It returns whether it was, and judges nothing if not.
template <class Scene>
void while_committing(Scene&& scene) {
  for (int i = 0; i < 10; ++i) {
    if (scene()) return;
  }
  FAIL("ten times the loader may have given the volume up before all was seen");
}

}  // namespace kelp::test
