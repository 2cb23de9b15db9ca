// The command line of kelpd.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shm_ring/result.h"

namespace kelp {

/// What the flags say. They override the configuration file; see load_config().
struct CommandLine {
  std::optional<std::string> answer;  ///< of --help or --version: print it, exit 0, do nothing else
  bool check = false;                 ///< --check: load the configuration, say so, and exit
  std::optional<std::string> config_file;  ///< --config
  std::vector<std::string> volume_dirs;    ///< --volume-dir, absolute; in place of the file's
  std::optional<std::string> idx_dir;      ///< --idx-dir, absolute; of all volume_dirs
  std::optional<std::string> run_dir;      ///< --run-dir, absolute
  std::optional<std::string> cpus;         ///< --cpus, as given; load_config() judges it
  std::optional<std::string> log_level;    ///< --log-level, as given
};

/// Errors: an unknown option, an option without its value, --idx-dir without --volume-dir.
Result<CommandLine> parse_command_line(int argc, char** argv);

}  // namespace kelp
