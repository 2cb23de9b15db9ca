#include "control/command_line.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <system_error>

namespace kelp {
namespace {

constexpr const char* kFooter =
    "\nSettings come from the defaults, then the configuration file, then the flags above.\n"
    "The file is --config, or /etc/kelp/kelpd.toml where that exists; docs/configuration.md lists\n"
    "its keys. A quick start, beside a running volume server or none:\n"
    "  kelpd --volume-server 127.0.0.1:8080=/data/seaweedfs --run-dir /tmp/kelp\n"
    "  kelpd --volume-dir /data/seaweedfs --run-dir /tmp/kelp\n"
    "or on a host without volumes, which are read from their servers:\n"
    "  kelpd --master 127.0.0.1:9333 --run-dir /tmp/kelp\n";

void declare(CLI::App& app, CommandLine& line, std::vector<std::string>& servers) {
  app.footer(kFooter);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);
  app.add_option("--config", line.config_file, "Configuration file (TOML)")->type_name("FILE");
  app.add_flag("--check", line.check, "Check the configuration and exit");
  app.add_option("--volume-dir", line.volume_dirs,
                 "Directory of .dat files to serve, in place of the file's; repeatable")
      ->type_name("DIR")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option(
         "--volume-server", servers,
         "A weed volume of this host and its directories, in place of the file's; repeatable")
      ->type_name("URL=DIR[,DIR]")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--idx-dir", line.idx_dir,
                 "Directory of the .idx files, where they do not lie beside the .dat files")
      ->type_name("DIR");
  app.add_option("--master", line.masters,
                 "A master to ask where a volume is, in place of the file's; repeatable")
      ->type_name("HOST:PORT")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--sidecar", line.sidecar,
                 "Where the HTTP read API listens, say 127.0.0.1:8081; in place of the file's")
      ->type_name("HOST:PORT");
  app.add_option("--run-dir", line.run_dir, "Directory of the sockets and the lock file")
      ->type_name("DIR");
  app.add_option("--cpus", line.cpus, "CPUs to pin a worker to each, say 2,3")->type_name("CPU");
  app.add_option("--log-level", line.log_level, "debug, info, warning or error")
      ->type_name("LEVEL");
}

/// A directory given on the command line is meant from where the caller stands.
std::string absolute(const std::string& path) {
  std::error_code failed;
  const std::filesystem::path full = std::filesystem::absolute(path, failed);
  return failed || path.empty() ? path : full.lexically_normal().string();
}

/// "127.0.0.1:8080=/data/a,/data/b". A directory with a comma in its name takes a file.
Result<void> take_servers(const std::vector<std::string>& texts, CommandLine& line) {
  for (const std::string& text : texts) {
    const std::size_t equals = text.find('=');
    CommandLine::Server server{text.substr(0, equals), {}};
    for (std::size_t at = equals; at != std::string::npos;) {
      const std::size_t comma = text.find(',', at + 1);
      const std::size_t length = comma == std::string::npos ? comma : comma - at - 1;
      server.dirs.push_back(text.substr(at + 1, length));
      if (server.dirs.back().empty()) server.dirs.clear();
      at = server.dirs.empty() ? std::string::npos : comma;
    }
    if (server.dirs.empty()) {
      return plain_error("--volume-server " + text +
                         " names no directory: write URL=DIR, or URL=DIR,DIR in the order of the "
                         "server's -dir");
    }
    line.volume_servers.push_back(std::move(server));
  }
  return {};
}

void make_absolute(CommandLine& line) {
  for (CommandLine::Server& server : line.volume_servers) {
    for (std::string& dir : server.dirs) dir = absolute(dir);
  }
  for (std::string& dir : line.volume_dirs) dir = absolute(dir);
  if (line.idx_dir) line.idx_dir = absolute(*line.idx_dir);
  if (line.run_dir) line.run_dir = absolute(*line.run_dir);
}

}  // namespace

Result<CommandLine> parse_command_line(int argc, char** argv) {
  try {
    CommandLine line;
    bool version = false;
    CLI::App app("kelpd: serves SeaweedFS needles to programs of this host through shared memory",
                 "kelpd");
    std::vector<std::string> servers;
    declare(app, line, servers);
    app.add_flag("--version", version, "Print the version and exit");
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      line.answer = app.help();
      return line;
    } catch (const CLI::ParseError& error) {
      return plain_error(std::string(error.what()) + " (kelpd --help lists the options)");
    }
    if (version) line.answer = "kelpd " KELP_PROJECT_VERSION "\n";
    if (line.answer) return line;
    if (Result<void> taken = take_servers(servers, line); !taken) {
      return tl::unexpected(taken.error());
    }
    if (line.idx_dir && line.volume_dirs.empty() && line.volume_servers.empty()) {
      return plain_error(
          "--idx-dir says where the .idx files of a --volume-dir or --volume-server lie: give that "
          "too, or write idx_dir under its table in the configuration file");
    }
    make_absolute(line);
    return line;
  } catch (const std::exception& error) {
    return plain_error(std::string("cannot read the command line: ") + error.what());
  }
}

}  // namespace kelp
