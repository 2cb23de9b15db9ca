// The keys of the configuration: one table with each key's name, what it accepts, what it is for,
// and how it is read and shown. File, flags, /config and the documentation all follow it.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "control/config.h"

namespace kelp {

/// A value of a kind no key takes, and its name for the error: "a boolean".
struct UnfitValue {
  std::string kind;
};

/// A value as a file or a flag holds it, before a key has judged it.
using ConfigValue = std::variant<std::int64_t, bool, std::string, std::vector<std::int64_t>,
                                 std::vector<std::string>, UnfitValue>;

struct ConfigKey {
  std::string_view name;  ///< "worker.spin_us"
  std::string accepts;    ///< "0..100000 microseconds"
  std::string_view help;  ///< one sentence

  /// Stores the value, in number `entry` of its [[table]] where the key is of one.
  /// Answers what is wrong with it, to follow "key = value": "is out of range: ...".
  std::function<std::optional<std::string>(Config&, std::size_t entry, const ConfigValue&)> set;

  /// The stored value as JSON text.
  std::function<std::string(const Config&, std::size_t entry)> show;

  /// Takes over the value of another configuration.
  std::function<void(Config& to, const Config& from, std::size_t entry)> copy;

  bool reloadable = false;  ///< a reload applies it; else it needs a restart
};

/// The tables a file may hold several of, each [[in two brackets]].
constexpr std::string_view kDirectoryTable = "target.directory";
constexpr std::string_view kServerTable = "target.volume_server";

/// The table that a key, or the table's own name, belongs to; empty: none of those.
std::string_view repeated_table_of(std::string_view name);

/// All keys, section by section, in the order of the sample file.
std::span<const ConfigKey> config_keys();

/// Null if there is none.
const ConfigKey* find_config_key(std::string_view name);

/// True for "daemon", "worker", ...
bool is_config_section(std::string_view name);

/// The known key or section that `name` was most likely meant to be; empty if none is near.
std::string_view nearest_config_key(std::string_view name);

}  // namespace kelp
