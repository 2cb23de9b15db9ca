// A TOML file as a flat list of assignments, each with its line. Knows TOML, not what keys mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "control/config_keys.h"
#include "shm_ring/result.h"

namespace kelp {

/// "worker.spin_us = 50", wherever and however the file writes it.
struct ConfigAssignment {
  std::string key;
  ConfigValue value;
  std::string text;       ///< the value as TOML, for messages; shortened
  std::uint32_t line;     ///< from 1
  std::size_t entry = 0;  ///< which one of a [[table]]
};

struct ConfigFile {
  std::string name;                           ///< as given, for messages
  std::vector<ConfigAssignment> assignments;  ///< by line
  /// Where each [[target.directory]] and [[target.volume_server]] starts, by table.
  std::map<std::string, std::vector<std::uint32_t>, std::less<>> table_lines;
};

/// Reads a regular file of at most 256 KiB. Errors: cannot be read, too big, not TOML (with line).
Result<ConfigFile> read_config_file(const std::string& path);

/// The same from text; `name` stands for it in messages.
Result<ConfigFile> parse_config_text(const std::string& text, const std::string& name);

}  // namespace kelp
