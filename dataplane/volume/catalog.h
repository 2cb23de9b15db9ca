// Which volumes the configured directories hold, and what is to become of each.
//
// Looks at directories only; opening is the loader's work (volume_open.h). scan() compares what is
// there with what was there and answers what changed. Loader thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dataplane/volume/volume.h"
#include "dataplane/volume/volume_open.h"

namespace kelp {

/// A directory of volumes: of a volume server, or served as it lies there, unattested.
struct VolumeDirectory {
  std::string path;
  std::string idx_dir;       ///< where .idx files are if not beside .dat; "" for none
  std::uint32_t server = 0;  ///< as in VolumeKey
  std::uint32_t rank = 0;    ///< which of the server's directories, from 0
  std::shared_ptr<ServerPulse> pulse = nullptr;  ///< the server's; null where there is none
};

enum class VolumeState : std::uint8_t {
  kLoading,  ///< its index is being read
  kServing,
  kUseHttp,  ///< erasure-coded, tiered, unknown: only the volume server can read it
  kRefused,  ///< cannot be opened; see the reason
};

/// One volume as people see it.
struct VolumeReport {
  VolumeKey key;
  std::string collection;
  std::string directory;
  VolumeState state = VolumeState::kLoading;
  std::string reason;
  std::uint8_t version = 0;
  std::uint16_t revision = 0;
  std::uint64_t dat_bytes = 0;
  std::shared_ptr<const VolumeCounters> counters;
  std::shared_ptr<const Attestation> attestation;  ///< null until opened, and without a server
};

/// A directory that cannot be read, or should not be.
struct DirectoryTrouble {
  std::string path;
  std::string what;
};

class Catalog {
 public:
  /// Of all volumes in `directories` those worker `worker` of `workers` owns.
  explicit Catalog(std::vector<VolumeDirectory> directories, std::uint32_t worker = 0,
                   std::uint32_t workers = 1);

  struct Change {
    enum class Kind : std::uint8_t { kOpen, kUseHttp, kGone };
    Kind kind;
    VolumeKey key;
  };
  /// Reads the directories. A volume is to be opened when it is new, when its .idx or .dat is
  /// another file than last time, and again at each scan while it was refused for now.
  std::vector<Change> scan();

  /// An open attempt for a volume of the last scan; nothing if that is gone.
  std::unique_ptr<VolumeOpen> begin_open(VolumeKey key);

  /// What came of it. A volume of a server gets its attestation here.
  void opened(VolumeKey key, Volume& volume);
  void failed(VolumeKey key, const OpenFailure& failure);
  /// The worker found the open files stale: opens anew at once, keeps state for people.
  void reopening(VolumeKey key);

  /// Directories to watch for changes: data and index directories, each once.
  std::vector<std::string> watched_directories() const;

  /// Any thread.
  std::vector<VolumeReport> reports() const;
  std::vector<DirectoryTrouble> troubles() const;
  /// Of a volume with a .dat, the first server's that has it, and the width of its index as far as
  /// that is known.
  std::optional<std::pair<VolumePaths, OffsetWidth>> files(VolumeId id) const;
  /// Those of the open volumes of one server.
  std::vector<std::shared_ptr<Attestation>> attestations(std::uint32_t server) const;

 private:
  struct FileIdentity {
    std::uint64_t device = 0;
    std::uint64_t inode = 0;
    friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
  };
  struct Found {
    std::string collection;
    const VolumeDirectory* directory = nullptr;
    std::uint32_t collections = 0;
    bool has_dat = false;
    std::string use_http;  // why only the server can read it, as far as names tell; "" to open it
    VolumePaths paths;
    FileIdentity dat;
    FileIdentity idx;
  };
  struct Entry {
    Found found;
    bool retry = false;
    std::shared_ptr<Attestation> attestation;
    VolumeReport report;
  };

  using Listing = std::map<VolumeKey, Found>;

  void scan_directory(const VolumeDirectory& directory, Listing& found,
                      std::vector<DirectoryTrouble>& troubles) const;
  /// What a directory that cannot be listed held last time: out of sight is not gone, and a stale
  /// twin in a later directory must not take over. The open files tell whether they still serve.
  void keep_known(const VolumeDirectory& directory, Listing& found) const;
  void list_names(const VolumeDirectory& directory, Listing& here,
                  std::vector<DirectoryTrouble>& troubles, Listing& found) const;
  static void note_name(const VolumeDirectory& directory, const std::string& collection,
                        bool is_dat, Found& volume);
  static void locate_files(const VolumeDirectory& directory, VolumeId id, Found& found);
  Change start_entry(VolumeKey key, Found found);

  const std::vector<VolumeDirectory> directories_;
  const std::uint32_t worker_;
  const std::uint32_t workers_;
  mutable std::mutex
      mutex_;  // entries_ and troubles_: the loader writes, reports are read anywhere
  std::map<VolumeKey, Entry> entries_;
  std::vector<DirectoryTrouble> troubles_;
};

}  // namespace kelp
