#include "control/config.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "control/byte_size.h"
#include "control/config_file.h"
#include "control/config_keys.h"
#include "sidecar/buffers.h"

namespace kelp {
namespace {

constexpr const char* kNothingToServe =
    "nothing to serve: add --volume-server HOST:PORT=DIR, --volume-dir DIR or --master HOST:PORT, "
    "or to the configuration file\n"
    "  [[target.volume_server]]\n"
    "  url = \"127.0.0.1:8080\"\n"
    "  dirs = [\"/where/its/.dat/files/are\"]\n"
    "or\n"
    "  [gateway]\n"
    "  masters = [\"127.0.0.1:9333\"]";
constexpr std::size_t kMostServers = 64;
/// Of the sidecar's data area, which is rounded up to hugepages where there are any.
constexpr std::uint64_t kHugepageBytes = 2 << 20;
constexpr std::uint64_t kSidecarBytes =
    (sidecar::Buffers::total_bytes() + kHugepageBytes - 1) / kHugepageBytes * kHugepageBytes;

/// The flags say what is served, so the file does not.
bool names_directories(const CommandLine& flags) {
  return !flags.volume_dirs.empty() || !flags.volume_servers.empty();
}

/// The configuration while it is being put together, and where each value came from.
class Loading {
 public:
  /// `file` as the configuration shows it; it is read by take_file().
  explicit Loading(std::string file) { config_.file = std::move(file); }

  /// The file's items, by line.
  Result<void> take_file(const ConfigFile& file, bool skip_directories) {
    if (!skip_directories) {
      config_.target.directories.resize(start_entries(file, kDirectoryTable));
      config_.target.volume_servers.resize(start_entries(file, kServerTable));
    }
    for (const ConfigAssignment& item : file.assignments) {
      if (Result<void> taken = take_item(file, item, skip_directories); !taken) return taken;
    }
    return {};
  }

  /// One flag's value for the key `name`.
  Result<void> take_flag(std::string_view name, const std::string& flag, const ConfigValue& value,
                         std::size_t entry = 0) {
    const ConfigKey& key = *find_config_key(name);
    if (const auto problem = key.set(config_, entry, value)) {
      const auto* text = std::get_if<std::string>(&value);
      return plain_error(flag + " " + (text == nullptr ? "" : *text + " ") + *problem);
    }
    origins_[{std::string(name), entry}] = flag;
    return {};
  }

  Result<void> take_directory_flags(const CommandLine& flags) {
    if (!names_directories(flags)) return {};
    config_.target.directories.assign(flags.volume_dirs.size(), {});
    config_.target.volume_servers.assign(flags.volume_servers.size(), {});
    for (std::size_t i = 0; i < flags.volume_servers.size(); ++i) {
      const CommandLine::Server& server = flags.volume_servers[i];
      Result<void> taken = take_flag("target.volume_server.url", "--volume-server", server.url, i);
      if (taken) {
        taken = take_flag("target.volume_server.dirs", "--volume-server", server.dirs, i);
      }
      if (taken && flags.idx_dir) {
        taken = take_flag("target.volume_server.idx_dir", "--idx-dir", *flags.idx_dir, i);
      }
      if (!taken) return taken;
    }
    for (std::size_t i = 0; i < flags.volume_dirs.size(); ++i) {
      Result<void> taken =
          take_flag("target.directory.path", "--volume-dir", flags.volume_dirs[i], i);
      if (taken && flags.idx_dir) {
        taken = take_flag("target.directory.idx_dir", "--idx-dir", *flags.idx_dir, i);
      }
      if (!taken) return taken;
    }
    return {};
  }

  /// What no key can judge alone.
  Result<void> judge_whole() const {
    const TargetConfig& target = config_.target;
    if (target.directories.empty() && target.volume_servers.empty() &&
        config_.gateway.masters.empty()) {
      return plain_error(kNothingToServe);
    }
    std::set<std::string> seen;
    for (std::size_t i = 0; i < target.volume_servers.size(); ++i) {
      if (Result<void> fit = judge_server(i, seen); !fit) return fit;
    }
    for (std::size_t i = 0; i < target.directories.size(); ++i) {
      const TargetDirectory& directory = target.directories[i];
      if (directory.path.empty()) {
        return plain_error(start_of(kDirectoryTable, i) +
                           ": [[target.directory]] has no path: add one");
      }
      Result<void> fit =
          judge_volume_directory(directory.path, origin("target.directory.path", i), seen);
      if (fit && !directory.idx_dir.empty()) {
        fit = judge_directory(directory.idx_dir, origin("target.directory.idx_dir", i));
      }
      if (!fit) return fit;
    }
    return {};
  }

  Config finish() && {
    for (const ConfigKey& key : config_keys()) {
      if (repeated_table_of(key.name).empty()) add_origin(key, std::string(key.name), 0);
    }
    add_table_origins(kServerTable, config_.target.volume_servers.size());
    add_table_origins(kDirectoryTable, config_.target.directories.size());
    return std::move(config_);
  }

 private:
  Result<void> take_item(const ConfigFile& file, const ConfigAssignment& item,
                         bool skip_directories) {
    const std::string where = file.name + ":" + std::to_string(item.line);
    const ConfigKey* key = find_config_key(item.key);
    const std::string_view table = repeated_table_of(item.key);
    if (key == nullptr || (!table.empty() && !file.table_lines.contains(table))) {
      return plain_error(where + ": " + unknown_key(item));
    }
    if (skip_directories && !table.empty()) return {};
    if (const auto problem = key->set(config_, item.entry, item.value)) {
      return plain_error(where + ": " + item.key + " = " + item.text + " " + *problem);
    }
    origins_[{item.key, item.entry}] = where;
    return {};
  }

  static std::string unknown_key(const ConfigAssignment& item) {
    if (const std::string_view table = repeated_table_of(item.key); table == item.key) {
      return item.key + " is a list of tables: write [[" + item.key + "]], with two brackets";
    }
    if (is_config_section(item.key)) {
      return item.key + " is a section: write [" + item.key + "], and its keys below";
    }
    const bool table = std::holds_alternative<UnfitValue>(item.value) &&
                       std::get<UnfitValue>(item.value).kind == "a table";
    std::string text = (table ? "unknown section " : "unknown key ") + item.key;
    const std::string_view nearest = nearest_config_key(item.key);
    if (!nearest.empty()) return text + ": did you mean " + std::string(nearest) + "?";
    return text + ": docs/configuration.md lists what there is";
  }

  std::size_t start_entries(const ConfigFile& file, std::string_view table) {
    const auto lines = file.table_lines.find(table);
    if (lines == file.table_lines.end()) return 0;
    for (std::size_t i = 0; i < lines->second.size(); ++i) {
      origins_[{std::string(table), i}] = file.name + ":" + std::to_string(lines->second[i]);
    }
    return lines->second.size();
  }

  /// Where an entry of a [[table]] begins.
  std::string start_of(std::string_view table, std::size_t entry) const {
    return origin(table, entry);
  }

  Result<void> judge_server(std::size_t i, std::set<std::string>& seen) const {
    const TargetVolumeServer& server = config_.target.volume_servers[i];
    const std::string start = start_of(kServerTable, i) + ": [[target.volume_server]]";
    if (server.url.empty()) return plain_error(start + " has no url: add one, like host:port");
    if (server.dirs.empty()) {
      return plain_error(start + " has no dirs: list the directories of its -dir, in that order");
    }
    const std::string where = origin("target.volume_server.dirs", i);
    for (const std::string& path : server.dirs) {
      if (Result<void> fit = judge_volume_directory(path, where, seen); !fit) return fit;
    }
    for (std::size_t other = 0; other < i; ++other) {
      if (config_.target.volume_servers[other].url != server.url) continue;
      return plain_error(origin("target.volume_server.url", i) + ": the volume server " +
                         server.url + " is named twice: put all its dirs into one table");
    }
    if (i >= kMostServers) {
      return plain_error(start + ": at most " + std::to_string(kMostServers) +
                         " volume servers of one host are served");
    }
    if (server.idx_dir.empty()) return {};
    return judge_directory(server.idx_dir, origin("target.volume_server.idx_dir", i));
  }

  /// One that no other entry names.
  static Result<void> judge_volume_directory(const std::string& path, const std::string& where,
                                             std::set<std::string>& seen) {
    if (Result<void> fit = judge_directory(path, where); !fit) return fit;
    if (seen.insert(real_path(path)).second) return {};
    return plain_error(where + ": the directory " + path + " is named twice: remove one of them");
  }

  static Result<void> judge_directory(const std::string& path, const std::string& where) {
    struct stat found {};
    if (::stat(path.c_str(), &found) != 0) {
      return system_error(where + ": cannot use the directory " + path);
    }
    if (S_ISDIR(found.st_mode)) return {};
    return plain_error(where + ": " + path +
                       " is not a directory: name the one that holds the files");
  }

  /// Two spellings of one directory compare equal.
  static std::string real_path(const std::string& path) {
    std::error_code failed;
    const std::filesystem::path real = std::filesystem::canonical(path, failed);
    return failed ? path : real.string();
  }

  std::string origin(std::string_view name, std::size_t entry) const {
    const auto found = origins_.find({std::string(name), entry});
    return found == origins_.end() ? "default" : found->second;
  }

  void add_table_origins(std::string_view table, std::size_t entries) {
    for (std::size_t i = 0; i < entries; ++i) {
      for (const ConfigKey& key : config_keys()) {
        if (repeated_table_of(key.name) != table) continue;
        add_origin(key,
                   std::string(table) + "[" + std::to_string(i) + "]" +
                       std::string(key.name.substr(table.size())),
                   i);
      }
    }
  }

  void add_origin(const ConfigKey& key, std::string shown_name, std::size_t entry) {
    config_.origins.push_back(
        {std::move(shown_name), key.show(config_, entry), origin(key.name, entry), key.reloadable});
  }

  Config config_;
  std::map<std::pair<std::string, std::size_t>, std::string> origins_;
};

/// The file to read, if any: the one named, or the default one where it exists.
Result<std::optional<std::string>> choose_file(const CommandLine& flags,
                                               std::string_view default_file) {
  if (flags.config_file) return flags.config_file;
  std::string path(default_file);
  struct stat found {};
  if (::stat(path.c_str(), &found) == 0) return std::optional(std::move(path));
  if (errno == ENOENT || errno == ENOTDIR) return std::optional<std::string>();
  return system_error("cannot read the configuration file " + path);
}

std::string origin_of(const Config& config, std::string_view key) {
  for (const ConfigOrigin& item : config.origins) {
    if (item.key == key) return item.origin;
  }
  return "default";
}

Result<void> take_plain_flags(Loading& loading, const CommandLine& flags) {
  struct PlainFlag {
    std::string_view key;
    const char* flag;
    const std::optional<std::string>& value;
  };
  const PlainFlag plain[] = {{"daemon.run_dir", "--run-dir", flags.run_dir},
                             {"worker.cpus", "--cpus", flags.cpus},
                             {"daemon.log_level", "--log-level", flags.log_level},
                             {"sidecar.listen", "--sidecar", flags.sidecar}};
  for (const PlainFlag& item : plain) {
    if (!item.value) continue;
    Result<void> taken = loading.take_flag(item.key, item.flag, *item.value);
    if (!taken) return taken;
  }
  if (flags.masters.empty()) return {};
  return loading.take_flag("gateway.masters", "--master", flags.masters);
}

}  // namespace

Result<Config> load_config(const CommandLine& flags, std::string_view default_file) {
  const Result<std::optional<std::string>> path = choose_file(flags, default_file);
  if (!path) return tl::unexpected(path.error());
  Loading loading(path->value_or(""));
  Result<void> step;
  if (*path) {
    const Result<ConfigFile> file = read_config_file(**path);
    if (!file) return tl::unexpected(file.error());
    step = loading.take_file(*file, names_directories(flags));
  }
  if (step) step = take_plain_flags(loading, flags);
  if (step) step = loading.take_directory_flags(flags);
  if (step) step = loading.judge_whole();
  if (!step) return tl::unexpected(step.error());
  Config config = std::move(loading).finish();
  if (const Result<void> fit = judge_sidecar_memory(config); !fit) {
    return tl::unexpected(fit.error());
  }
  return config;
}

Result<void> judge_sidecar_memory(const Config& config) {
  const bool by_port = !config.sidecar.listen.empty();
  if (!by_port && !config.sidecar.unix_socket) return {};
  const ClientConfig& client = config.client;
  const bool alone = client.max_data_bytes < kSidecarBytes;
  const bool by_uid =
      client.max_data_bytes_per_uid != 0 && client.max_data_bytes_per_uid < kSidecarBytes;
  if (!alone && !by_uid) return {};
  const std::string limit = alone ? "client.max_data_bytes" : "client.max_data_bytes_per_uid";
  const std::string api = by_port ? "sidecar.listen" : "sidecar.unix_socket";
  const std::uint64_t allowed = alone ? client.max_data_bytes : client.max_data_bytes_per_uid;
  const std::string needed = format_byte_size(kSidecarBytes);
  return plain_error(origin_of(config, limit) + ": " + limit + " = " + format_byte_size(allowed) +
                     " is too little for the HTTP read API (" + api + ", " +
                     origin_of(config, api) + "), a client with a data area of " + needed +
                     ": allow " + needed + " or more, or remove " + api);
}

}  // namespace kelp
