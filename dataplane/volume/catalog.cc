#include "dataplane/volume/catalog.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "dataplane/volume/file_system.h"
#include "dataplane/volume/volume_name.h"

namespace kelp {
namespace {

struct DirectoryClose {
  void operator()(DIR* dir) const noexcept { ::closedir(dir); }
};
using OpenDirectory = std::unique_ptr<DIR, DirectoryClose>;

/// .ecx, or a shard, .ec00 to .ec31: with an index directory the .ecx lies there, shards never do.
bool is_of_shards(std::string_view extension) {
  if (extension == ".ecx") return true;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  return extension.size() == 5 && extension.starts_with(".ec") && is_digit(extension[3]) &&
         is_digit(extension[4]);
}

bool is_file(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

}  // namespace

Catalog::Catalog(std::vector<VolumeDirectory> directories) : directories_(std::move(directories)) {}

std::vector<std::string> Catalog::watched_directories() const {
  std::set<std::string> paths;
  for (const VolumeDirectory& directory : directories_) {
    paths.insert(directory.path);
    if (!directory.idx_dir.empty()) paths.insert(directory.idx_dir);
  }
  return {paths.begin(), paths.end()};
}

void Catalog::locate_files(const VolumeDirectory& directory, VolumeId id, Found& found) {
  const std::string base = volume_base_name(found.collection, id);
  const std::string data = directory.path + "/" + base;
  found.directory = &directory;
  found.paths.dat = data + ".dat";
  found.paths.vif = data + ".vif";
  found.paths.compaction_marker = data + ".cpc";
  found.paths.copy_marker = data + ".note";
  // A .idx beside the .dat wins even where an index directory is configured.
  found.paths.idx = data + ".idx";
  if (!directory.idx_dir.empty() && !is_file(found.paths.idx)) {
    found.paths.idx = directory.idx_dir + "/" + base + ".idx";
  }
  const auto identify = [](const std::string& path) {
    struct stat st {};
    return ::stat(path.c_str(), &st) == 0 ? FileIdentity{st.st_dev, st.st_ino} : FileIdentity{};
  };
  found.dat = identify(found.paths.dat);
  found.idx = identify(found.paths.idx);
}

void Catalog::scan_directory(const VolumeDirectory& directory, std::map<VolumeId, Found>& found,
                             std::vector<DirectoryTrouble>& troubles) const {
  // Checked at each scan: something may have been mounted over the directory.
  const auto checked = check_file_system(directory.path);
  if (!checked) {
    troubles.push_back({directory.path, checked.error().what});
    if (checked.error().os_error != ENOENT) keep_known(directory, found);
    return;
  }
  const OpenDirectory dir(::opendir(directory.path.c_str()));
  if (dir == nullptr) {
    troubles.push_back(
        {directory.path, "cannot list " + directory.path + ": " + std::strerror(errno)});
    return keep_known(directory, found);
  }
  std::map<VolumeId, Found> here;
  errno = 0;  // the end of the directory leaves it alone, an error does not
  for (const dirent* entry; (entry = ::readdir(dir.get())) != nullptr; errno = 0) {
    const auto name = parse_volume_name(entry->d_name);
    if (!name) continue;
    const bool is_dat = name->extension == ".dat";
    if (!is_dat && !is_of_shards(name->extension)) continue;
    Found& volume = here[name->id];
    // Two collections cannot share a volume id; where they do, the first name stays.
    if (volume.directory == nullptr) {
      volume.collection = name->collection;
      volume.directory = &directory;
    } else if (volume.collection != name->collection) {
      troubles.push_back({directory.path, "volume " +
                                              std::to_string(static_cast<std::uint32_t>(name->id)) +
                                              " is there under two collections"});
      continue;
    }
    if (is_dat) volume.has_dat = true;
  }
  if (errno != 0) {
    troubles.push_back(
        {directory.path, "cannot list all of " + directory.path + ": " + std::strerror(errno)});
    keep_known(directory, found);
  }
  for (auto& [id, volume] : here) {
    const auto earlier = found.find(id);
    // An earlier directory has it, and wins as upstream; but a normal volume wins over shards.
    if (earlier != found.end() && (earlier->second.has_dat || !volume.has_dat)) continue;
    locate_files(directory, id, volume);
    found.insert_or_assign(id, std::move(volume));
  }
}

void Catalog::keep_known(const VolumeDirectory& directory, std::map<VolumeId, Found>& found) const {
  for (const auto& [id, entry] : entries_) {
    if (entry.found.directory == &directory) found.emplace(id, entry.found);
  }
}

std::vector<Catalog::Change> Catalog::scan() {
  std::map<VolumeId, Found> found;
  std::vector<DirectoryTrouble> troubles;
  for (const VolumeDirectory& directory : directories_) scan_directory(directory, found, troubles);

  const std::lock_guard lock(mutex_);
  troubles_ = std::move(troubles);
  std::vector<Change> changes;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    if (found.contains(entry->first)) {
      ++entry;
      continue;
    }
    changes.push_back({Change::Kind::kGone, entry->first});
    entry = entries_.erase(entry);
  }
  for (auto& [id, volume] : found) {
    const auto known = entries_.find(id);
    const bool same = known != entries_.end() && !known->second.retry &&
                      known->second.found.dat == volume.dat &&
                      known->second.found.idx == volume.idx &&
                      known->second.found.paths.idx == volume.paths.idx &&
                      known->second.found.paths.dat == volume.paths.dat &&
                      known->second.found.has_dat == volume.has_dat;
    if (!same) changes.push_back(start_entry(id, std::move(volume)));
  }
  return changes;
}

Catalog::Change Catalog::start_entry(VolumeId id, Found found) {
  Entry& entry = entries_[id];
  entry.report.id = id;
  entry.report.collection = found.collection;
  entry.report.directory = found.directory->path;
  entry.retry = false;
  if (entry.report.counters == nullptr) entry.report.counters = std::make_shared<VolumeCounters>();
  entry.found = std::move(found);
  if (entry.found.has_dat) {
    if (entry.report.state != VolumeState::kServing) entry.report.state = VolumeState::kLoading;
    return {Change::Kind::kOpen, id};
  }
  entry.report.state = VolumeState::kUseHttp;
  entry.report.reason = "erasure-coded";
  return {Change::Kind::kUseHttp, id};
}

std::unique_ptr<VolumeOpen> Catalog::begin_open(VolumeId id) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || !entry->second.found.has_dat) return nullptr;
  // Files may have been replaced since the scan; remember what is opened, not what was listed.
  locate_files(*entry->second.found.directory, id, entry->second.found);
  return std::make_unique<VolumeOpen>(
      id, entry->second.found.paths,
      std::const_pointer_cast<VolumeCounters>(entry->second.report.counters));
}

void Catalog::reopening(VolumeId id) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry != entries_.end()) entry->second.report.state = VolumeState::kLoading;
}

void Catalog::opened(VolumeId id, const Volume& volume) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return;
  VolumeReport& report = entry->second.report;
  report.state = VolumeState::kServing;
  report.reason.clear();
  report.version = volume.version();
  report.revision = volume.revision();
}

void Catalog::failed(VolumeId id, const OpenFailure& failure) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end()) return;
  VolumeReport& report = entry->second.report;
  report.state =
      failure.refusal == OpenRefusal::kUseHttp ? VolumeState::kUseHttp : VolumeState::kRefused;
  report.reason = failure.reason;
  // Permissions, super blocks and .vif files change without a new inode: look again at each scan.
  entry->second.retry = true;
}

std::vector<VolumeReport> Catalog::reports() const {
  std::vector<VolumeReport> all;
  std::vector<std::string> dat_paths;
  {
    const std::lock_guard lock(mutex_);
    all.reserve(entries_.size());
    dat_paths.reserve(entries_.size());
    for (const auto& [id, entry] : entries_) {
      all.push_back(entry.report);
      dat_paths.push_back(entry.found.has_dat ? entry.found.paths.dat : "");
    }
  }
  // Without the lock: a slow disk then keeps the asker waiting, and not the loader too.
  for (std::size_t i = 0; i < all.size(); ++i) {
    struct stat st {};
    if (!dat_paths[i].empty() && ::stat(dat_paths[i].c_str(), &st) == 0) {
      all[i].dat_bytes = static_cast<std::uint64_t>(st.st_size);
    }
  }
  return all;
}

std::optional<std::pair<VolumePaths, OffsetWidth>> Catalog::files(VolumeId id) const {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(id);
  if (entry == entries_.end() || !entry->second.found.has_dat) return std::nullopt;
  const auto width = static_cast<OffsetWidth>(entry->second.report.counters->offset_width.load());
  return std::pair(entry->second.found.paths, width);
}

std::vector<DirectoryTrouble> Catalog::troubles() const {
  const std::lock_guard lock(mutex_);
  return troubles_;
}

}  // namespace kelp
