// The kinds of configuration keys: number, byte size, choice, text, path, and the two odd ones.
// Each function builds one row of the table in config_keys.cc.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "control/config_keys.h"

namespace kelp {

/// Where a key's value lives. `entry` matters to keys of [[tables]] only.
template <class T>
using ConfigField = std::function<T&(Config&, std::size_t entry)>;

/// Fields hand out a reference to write through; this only reads through it.
template <class T>
const T& read_field(const ConfigField<T>& field, const Config& config, std::size_t entry) {
  return field(const_cast<Config&>(config), entry);
}

/// ConfigKey::copy for the key that lives in `field`.
template <class T>
std::function<void(Config&, const Config&, std::size_t)> copy_field(ConfigField<T> field) {
  return [field](Config& to, const Config& from, std::size_t entry) {
    field(to, entry) = read_field(field, from, entry);
  };
}

struct NumberRange {
  std::uint64_t low;
  std::uint64_t high;
  std::string_view unit;  ///< "milliseconds", or what is counted: "reads"
};

template <class E>
struct Choice {
  E value;
  std::string_view name;
};

ConfigKey number_key(std::string_view name, ConfigField<std::uint32_t> field, NumberRange range,
                     std::string_view help);
/// The same, and a power of two.
ConfigKey power_of_two_key(std::string_view name, ConfigField<std::uint32_t> field,
                           NumberRange range, std::string_view help);
/// An integer, or a text like "64MiB". The unit of the range is not used.
ConfigKey bytes_key(std::string_view name, ConfigField<std::uint64_t> field, NumberRange range,
                    std::string_view help);
/// Any text without control characters, at most 255 bytes; `accepts` describes it.
ConfigKey text_key(std::string_view name, ConfigField<std::string> field, std::string_view accepts,
                   std::string_view help);
/// An absolute path of at most `max_bytes` bytes.
ConfigKey path_key(std::string_view name, ConfigField<std::string> field, std::size_t max_bytes,
                   std::string_view help);
/// The same, or empty for none.
ConfigKey optional_path_key(std::string_view name, ConfigField<std::string> field,
                            std::size_t max_bytes, std::string_view help);
/// A list of at least one absolute path, or a text with one.
ConfigKey paths_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                    std::size_t max_bytes, std::string_view help);
/// "host:port", alone or after "http://" or "https://".
ConfigKey url_key(std::string_view name, ConfigField<std::string> field, std::string_view help);
/// A list of those, each once, or a text with one; may be empty.
ConfigKey urls_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                   std::string_view help);
/// Of parse_known_peer().
ConfigKey known_peers_key(std::string_view name, ConfigField<std::vector<std::string>> field,
                          std::string_view help);

/// true or false.
ConfigKey bool_key(std::string_view name, ConfigField<bool> field, std::string_view help);
/// A list of CPU numbers: an array, or a text like "2-3".
ConfigKey cpus_key(std::string_view name, ConfigField<std::vector<int>> field,
                   std::string_view help);
/// A list of user or group ids.
ConfigKey ids_key(std::string_view name, ConfigField<std::vector<std::uint32_t>> field,
                  std::string_view help);
/// An octal text of permission bits; writing by others is refused.
ConfigKey mode_key(std::string_view name, ConfigField<std::uint32_t> field, std::string_view help);

// What follows serves the template below.
std::string json_text(std::string_view text);
std::string wrong_kind(const ConfigValue& value, std::string_view wanted);

template <class E, std::size_t N>
ConfigKey choice_key(std::string_view name, ConfigField<E> field,
                     const std::array<Choice<E>, N>& choices, std::string_view help) {
  std::string accepts;
  for (const Choice<E>& choice : choices) {
    if (!accepts.empty()) accepts += ", ";
    accepts += choice.name;
  }
  auto set = [field, choices, accepts](Config& config, std::size_t entry,
                                       const ConfigValue& value) -> std::optional<std::string> {
    const auto* text = std::get_if<std::string>(&value);
    if (text == nullptr) return wrong_kind(value, "one of the words " + accepts);
    for (const Choice<E>& choice : choices) {
      if (choice.name != *text) continue;
      field(config, entry) = choice.value;
      return std::nullopt;
    }
    return "is none of " + accepts;
  };
  auto show = [field, choices](const Config& config, std::size_t entry) {
    const E value = read_field(field, config, entry);
    for (const Choice<E>& choice : choices) {
      if (choice.value == value) return json_text(choice.name);
    }
    return std::string("null");
  };
  return {name, accepts, help, set, show, copy_field(field)};
}

}  // namespace kelp
