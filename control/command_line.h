// The command line of kelpd.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "shm_ring/result.h"

namespace kelp {

/// What the flags say. They override the configuration file; see load_config(). With any directory
/// or volume server here, those of the file are not served.
struct CommandLine {
  std::optional<std::string> answer;  ///< of --help or --version: print it, exit 0, do nothing else
  bool check = false;                 ///< --check: load the configuration, say so, and exit
  std::optional<std::string> config_file;  ///< --config
  std::vector<std::string> volume_dirs;    ///< --volume-dir, absolute
  struct Server {
    std::string url;
    std::vector<std::string> dirs;  ///< absolute
  };
  std::vector<Server> volume_servers;    ///< --volume-server URL=DIR[,DIR]
  std::optional<std::string> idx_dir;    ///< --idx-dir, absolute; of all of those
  std::vector<std::string> masters;      ///< --master, as given; in place of gateway.masters
  std::optional<std::string> sidecar;    ///< --sidecar, as given; in place of sidecar.listen
  std::optional<std::string> run_dir;    ///< --run-dir, absolute
  std::optional<std::string> cpus;       ///< --cpus, as given; load_config() judges it
  std::optional<std::string> log_level;  ///< --log-level, as given
};

/// Errors: an unknown option, an option without its value, a --volume-server without directories,
/// --idx-dir without a directory it could be of.
Result<CommandLine> parse_command_line(int argc, char** argv);

}  // namespace kelp
