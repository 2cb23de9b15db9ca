// Tells attestations that a file of their volume was closed by a process that had it open to write.
//
// A volume server holds .dat, and .idx unless the volume is read-only, open for writing as long as
// it has the volume mounted: unmounting, a vacuum's commit, deletion, its end and its crash all
// close them, and the kernel queues the event before the closing call returns. (A volume loaded
// read-only has no descriptor of .idx in 4.48, so .idx alone would not do.)
// Other readers close without having been able to write, which is not reported; but where the
// server itself cannot write (a .dat without the owner's write bit), any close is.
//
// Belongs to one worker.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <vector>

#include "dataplane/volume/volume.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class CloseWatch {
 public:
  CloseWatch();

  /// Readable when there is something to drain(); -1: this system gives no more inotify instances.
  int fd() const noexcept { return inotify_.get(); }
  bool empty() const noexcept { return watched_.empty(); }

  /// Watches the open files of a volume that has an attestation, and says so to that. `volume` must
  /// be taken out again before it goes.
  void add(const Volume& volume);
  void remove(const Volume& volume) noexcept;

  /// Takes the closes that have happened; how many attestations they concerned. One system call
  /// when there were none. Call it also when nothing is watched any more: until then fd() stays
  /// readable, since the end of a watch is an event too.
  std::uint32_t drain() noexcept;

 private:
  bool add_file(int fd, std::uint32_t events, Attestation* attestation);
  std::uint32_t tell(int watch) noexcept;

  UniqueFd inotify_;
  /// Hard links may put one file into two volumes: then both hear of it.
  absl::flat_hash_map<int, std::vector<Attestation*>> watched_;
  absl::flat_hash_map<const Attestation*, std::vector<int>> watches_;
};

}  // namespace kelp
