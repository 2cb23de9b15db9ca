#include "dataplane/volume/catalog.h"

#include <dirent.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>
#include <string_view>

#include "dataplane/volume/file_system.h"
#include "dataplane/volume/vif.h"
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

/// Whether a volume without a .dat has its data elsewhere.
bool is_tiered(const std::string& vif_path) {
  const auto text = read_vif(vif_path);
  const auto info = text ? parse_vif(*text) : tl::unexpected(text.error());
  return info && info->tiered;
}

bool is_file(const std::string& path) {
  struct stat st {};
  return ::stat(path.c_str(), &st) == 0 && S_ISREG(st.st_mode);
}

}  // namespace

Catalog::Catalog(std::vector<VolumeDirectory> directories, std::uint32_t worker,
                 std::uint32_t workers)
    : directories_(std::move(directories)), worker_(worker), workers_(workers) {}

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

void Catalog::scan_directory(const VolumeDirectory& directory, Listing& found,
                             std::vector<DirectoryTrouble>& troubles) const {
  // Checked at each scan: something may have been mounted over the directory.
  const auto checked = check_file_system(directory.path);
  if (!checked) {
    troubles.push_back({directory.path, checked.error().what});
    if (checked.error().os_error != ENOENT) keep_known(directory, found);
    return;
  }
  Listing here;
  list_names(directory, here, troubles, found);
  for (auto& [key, volume] : here) {
    const auto earlier = found.find(key);
    // An earlier directory has it, and wins as upstream; but a normal volume wins over shards.
    if (earlier != found.end() && (earlier->second.has_dat || !volume.has_dat)) continue;
    locate_files(directory, key.id, volume);
    found.insert_or_assign(key, std::move(volume));
  }
}

void Catalog::list_names(const VolumeDirectory& directory, Listing& here,
                         std::vector<DirectoryTrouble>& troubles, Listing& found) const {
  const OpenDirectory dir(::opendir(directory.path.c_str()));
  if (dir == nullptr) {
    troubles.push_back(
        {directory.path, "cannot list " + directory.path + ": " + std::strerror(errno)});
    return keep_known(directory, found);
  }
  std::vector<std::pair<VolumeKey, std::string>> vifs;
  errno = 0;  // the end of the directory leaves it alone, an error does not
  for (const dirent* entry; (entry = ::readdir(dir.get())) != nullptr; errno = 0) {
    const auto name = parse_volume_name(entry->d_name);
    if (!name || owner_of(name->id, workers_) != worker_) continue;
    const VolumeKey key{directory.server, name->id};
    const bool is_dat = name->extension == ".dat";
    if (is_dat || is_of_shards(name->extension)) {
      note_name(directory, name->collection, is_dat, here[key]);
    } else if (name->extension == ".vif") {
      vifs.emplace_back(key, name->collection);
    }
  }
  if (errno != 0) {
    troubles.push_back(
        {directory.path, "cannot list all of " + directory.path + ": " + std::strerror(errno)});
    keep_known(directory, found);
  }
  // A .vif without a .dat matters only where it says that the data is elsewhere.
  for (const auto& [key, collection] : vifs) {
    const auto known = here.find(key);
    if (known != here.end() && known->second.collection == collection) continue;
    if (!is_tiered(directory.path + "/" + volume_base_name(collection, key.id) + ".vif")) continue;
    Found& volume = here[key];
    note_name(directory, collection, false, volume);
    if (!volume.has_dat) volume.use_http = "the volume's data is in a remote tier";
  }
  for (auto& [key, volume] : here) {
    if (volume.collections == 1) continue;
    // No server has both, and which one it took is its secret.
    volume.use_http = "the volume is there under two collections";
    troubles.push_back({directory.path, "volume " +
                                            std::to_string(static_cast<std::uint32_t>(key.id)) +
                                            " is there under two collections"});
  }
}

void Catalog::note_name(const VolumeDirectory& directory, const std::string& collection,
                        bool is_dat, Found& volume) {
  if (volume.directory == nullptr) {
    volume.directory = &directory;
    volume.collection = collection;
    volume.collections = 1;
    volume.use_http = "erasure-coded";
  } else if (volume.collection != collection) {
    ++volume.collections;
  }
  if (!is_dat) return;
  volume.has_dat = true;
  volume.use_http.clear();
}

void Catalog::keep_known(const VolumeDirectory& directory, Listing& found) const {
  for (const auto& [key, entry] : entries_) {
    if (entry.found.directory == &directory) found.emplace(key, entry.found);
  }
}

std::vector<Catalog::Change> Catalog::scan() {
  Listing found;
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
  for (auto& [key, volume] : found) {
    const auto known = entries_.find(key);
    const bool same = known != entries_.end() && !known->second.retry &&
                      known->second.found.dat == volume.dat &&
                      known->second.found.idx == volume.idx &&
                      known->second.found.paths.idx == volume.paths.idx &&
                      known->second.found.paths.dat == volume.paths.dat &&
                      known->second.found.use_http == volume.use_http &&
                      known->second.found.has_dat == volume.has_dat;
    if (!same) changes.push_back(start_entry(key, std::move(volume)));
  }
  return changes;
}

Catalog::Change Catalog::start_entry(VolumeKey key, Found found) {
  Entry& entry = entries_[key];
  entry.report.key = key;
  entry.report.collection = found.collection;
  entry.report.directory = found.directory->path;
  entry.retry = false;
  if (entry.report.counters == nullptr) entry.report.counters = std::make_shared<VolumeCounters>();
  entry.found = std::move(found);
  if (entry.found.use_http.empty()) {
    if (entry.report.state != VolumeState::kServing) entry.report.state = VolumeState::kLoading;
    return {Change::Kind::kOpen, key};
  }
  entry.attestation.reset();
  entry.report.state = VolumeState::kUseHttp;
  entry.report.reason = entry.found.use_http;
  return {Change::Kind::kUseHttp, key};
}

std::unique_ptr<VolumeOpen> Catalog::begin_open(VolumeKey key) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(key);
  if (entry == entries_.end() || !entry->second.found.use_http.empty()) return nullptr;
  // Files may have been replaced since the scan; remember what is opened, not what was listed.
  locate_files(*entry->second.found.directory, key.id, entry->second.found);
  return std::make_unique<VolumeOpen>(
      key.id, entry->second.found.paths,
      std::const_pointer_cast<VolumeCounters>(entry->second.report.counters));
}

void Catalog::reopening(VolumeKey key) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;
  entry->second.attestation.reset();
  entry->second.report.state = VolumeState::kLoading;
}

void Catalog::opened(VolumeKey key, Volume& volume) {
  const std::lock_guard lock(mutex_);
  const auto found = entries_.find(key);
  if (found == entries_.end()) return;
  Entry& entry = found->second;
  VolumeReport& report = entry.report;
  report.state = VolumeState::kServing;
  report.reason.clear();
  report.version = volume.version();
  report.revision = volume.revision();
  const VolumeDirectory& directory = *entry.found.directory;
  if (directory.pulse == nullptr) return;
  entry.attestation = std::make_shared<Attestation>(AttestedFacts{.key = key,
                                                                  .collection = report.collection,
                                                                  .directory_rank = directory.rank,
                                                                  .revision = volume.revision(),
                                                                  .version = volume.version()},
                                                    directory.pulse);
  volume.attested_by(entry.attestation);
}

void Catalog::failed(VolumeKey key, const OpenFailure& failure) {
  const std::lock_guard lock(mutex_);
  const auto entry = entries_.find(key);
  if (entry == entries_.end()) return;
  entry->second.attestation.reset();
  VolumeReport& report = entry->second.report;
  report.state =
      failure.refusal == OpenRefusal::kUseHttp ? VolumeState::kUseHttp : VolumeState::kRefused;
  report.reason = failure.reason;
  // Permissions, super blocks and .vif files change without a new inode: look again at each scan.
  entry->second.retry = true;
}

std::vector<std::shared_ptr<Attestation>> Catalog::attestations(std::uint32_t server) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Attestation>> all;
  for (auto entry = entries_.lower_bound({server, VolumeId{0}});
       entry != entries_.end() && entry->first.server == server; ++entry) {
    if (entry->second.attestation != nullptr) all.push_back(entry->second.attestation);
  }
  return all;
}

std::vector<VolumeReport> Catalog::reports() const {
  std::vector<VolumeReport> all;
  std::vector<std::string> dat_paths;
  {
    const std::lock_guard lock(mutex_);
    all.reserve(entries_.size());
    dat_paths.reserve(entries_.size());
    for (const auto& [key, entry] : entries_) {
      all.push_back(entry.report);
      all.back().attestation = entry.attestation;
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
  const auto entry = std::find_if(entries_.begin(), entries_.end(), [id](const auto& each) {
    return each.first.id == id && each.second.found.has_dat;
  });
  if (entry == entries_.end()) return std::nullopt;
  const auto width = static_cast<OffsetWidth>(entry->second.report.counters->offset_width.load());
  return std::pair(entry->second.found.paths, width);
}

std::vector<DirectoryTrouble> Catalog::troubles() const {
  const std::lock_guard lock(mutex_);
  return troubles_;
}

}  // namespace kelp
