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

#include "control/config_file.h"
#include "control/config_keys.h"

namespace kelp {
namespace {

constexpr const char* kNoDirectory =
    "no directory to serve: add --volume-dir DIR, or to the configuration file\n"
    "  [[target.directory]]\n"
    "  path = \"/where/the/.dat/files/are\"";

/// The configuration while it is being put together, and where each value came from.
class Loading {
 public:
  /// `file` as the configuration shows it; it is read by take_file().
  explicit Loading(std::string file) { config_.file = std::move(file); }

  /// The file's items, by line.
  Result<void> take_file(const ConfigFile& file, bool skip_directories) {
    if (!skip_directories) {
      config_.target.directories.resize(file.directory_lines.size());
      for (const std::uint32_t line : file.directory_lines) {
        directory_origins_.push_back(file.name + ":" + std::to_string(line));
      }
    }
    for (const ConfigAssignment& item : file.assignments) {
      if (Result<void> taken = take_item(file, item, skip_directories); !taken) return taken;
    }
    return {};
  }

  /// One flag's value for the key `name`.
  Result<void> take_flag(std::string_view name, const std::string& flag, const std::string& value,
                         std::size_t entry = 0) {
    const ConfigKey& key = *find_config_key(name);
    if (const auto problem = key.set(config_, entry, ConfigValue(value))) {
      return plain_error(flag + " " + value + " " + *problem);
    }
    origins_[{std::string(name), entry}] = flag;
    return {};
  }

  Result<void> take_directory_flags(const CommandLine& flags) {
    if (flags.volume_dirs.empty()) return {};
    config_.target.directories.assign(flags.volume_dirs.size(), {});
    directory_origins_.assign(flags.volume_dirs.size(), "--volume-dir");
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
    if (config_.target.directories.empty()) return plain_error(kNoDirectory);
    std::set<std::string> seen;
    for (std::size_t i = 0; i < config_.target.directories.size(); ++i) {
      const TargetDirectory& directory = config_.target.directories[i];
      if (directory.path.empty()) {
        return plain_error(directory_origins_[i] + ": [[target.directory]] has no path: add one");
      }
      Result<void> fit = judge_directory(directory.path, origin("target.directory.path", i));
      if (fit && !directory.idx_dir.empty()) {
        fit = judge_directory(directory.idx_dir, origin("target.directory.idx_dir", i));
      }
      if (!fit) return fit;
      if (!seen.insert(real_path(directory.path)).second) {
        return plain_error(origin("target.directory.path", i) + ": the directory " +
                           directory.path + " is named twice: remove one of them");
      }
    }
    return {};
  }

  Config finish() && {
    for (const ConfigKey& key : config_keys()) {
      if (!key.name.starts_with(kDirectoryTable)) add_origin(key, std::string(key.name), 0);
    }
    for (std::size_t i = 0; i < config_.target.directories.size(); ++i) {
      for (const ConfigKey& key : config_keys()) {
        if (!key.name.starts_with(kDirectoryTable)) continue;
        add_origin(key,
                   std::string(kDirectoryTable) + "[" + std::to_string(i) + "]" +
                       std::string(key.name.substr(kDirectoryTable.size())),
                   i);
      }
    }
    return std::move(config_);
  }

 private:
  Result<void> take_item(const ConfigFile& file, const ConfigAssignment& item,
                         bool skip_directories) {
    const std::string where = file.name + ":" + std::to_string(item.line);
    const ConfigKey* key = find_config_key(item.key);
    if (key == nullptr || (item.key.starts_with(kDirectoryTable) && file.directory_lines.empty())) {
      return plain_error(where + ": " + unknown_key(item));
    }
    if (skip_directories && item.key.starts_with(kDirectoryTable)) return {};
    if (const auto problem = key->set(config_, item.entry, item.value)) {
      return plain_error(where + ": " + item.key + " = " + item.text + " " + *problem);
    }
    origins_[{item.key, item.entry}] = where;
    return {};
  }

  static std::string unknown_key(const ConfigAssignment& item) {
    if (item.key == kDirectoryTable) {
      return "target.directory is a list of tables: write [[target.directory]], with two brackets";
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

  void add_origin(const ConfigKey& key, std::string shown_name, std::size_t entry) {
    config_.origins.push_back(
        {std::move(shown_name), key.show(config_, entry), origin(key.name, entry), key.reloadable});
  }

  Config config_;
  std::map<std::pair<std::string, std::size_t>, std::string> origins_;
  std::vector<std::string> directory_origins_;  ///< where each entry starts
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

Result<void> take_plain_flags(Loading& loading, const CommandLine& flags) {
  struct PlainFlag {
    std::string_view key;
    const char* flag;
    const std::optional<std::string>& value;
  };
  const PlainFlag plain[] = {{"daemon.run_dir", "--run-dir", flags.run_dir},
                             {"worker.cpus", "--cpus", flags.cpus},
                             {"daemon.log_level", "--log-level", flags.log_level}};
  for (const PlainFlag& item : plain) {
    if (!item.value) continue;
    Result<void> taken = loading.take_flag(item.key, item.flag, *item.value);
    if (!taken) return taken;
  }
  return {};
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
    step = loading.take_file(*file, !flags.volume_dirs.empty());
  }
  if (step) step = take_plain_flags(loading, flags);
  if (step) step = loading.take_directory_flags(flags);
  if (step) step = loading.judge_whole();
  if (!step) return tl::unexpected(step.error());
  return std::move(loading).finish();
}

}  // namespace kelp
