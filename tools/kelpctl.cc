#include "tools/kelpctl.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <functional>
#include <nlohmann/json.hpp>

#include "tools/control_command.h"
#include "tools/control_views.h"
#include "tools/device_views.h"
#include "tools/doctor.h"
#include "tools/loadgen_command.h"
#include "tools/output_file.h"
#include "tools/peer_views.h"
#include "tools/read_command.h"
#include "tools/ring_commands.h"
#include "tools/stat_command.h"
#include "tools/stats_watch.h"
#include "tools/table.h"
#include "tools/trace_command.h"

namespace kelp {
namespace {

constexpr const char* kReadFooter =
    "\nThe bytes go to stdout, and nothing else does; with --json, one object about the read goes\n"
    "to stderr. A FILE appears whole or not at all. On stdout, bytes written before an error stay\n"
    "written: look at the exit code.\n"
    "\n"
    "Examples:\n"
    "  kelpctl read 3,01637037d6 -o picture.jpg\n"
    "  kelpctl read 3,01637037d6 --offset 1048576 --size 4096 | xxd\n";

constexpr const char* kFooter =
    "\nThe daemon is the one of --run-dir, else of $KELP_RUN_DIR, else of /run/kelp.\n"
    "\n"
    "Examples:\n"
    "  kelpctl read 3,01637037d6 > picture.jpg\n"
    "  kelpctl stat 3,01637037d6 --json\n"
    "  kelpctl volumes --run-dir /tmp/kelp\n";

constexpr const char* kHealthFooter =
    "\nExits with 0 when the daemon is healthy or degraded (it answers reads), with 1 when it has\n"
    "failed, with 13 when there is none.\n";

constexpr const char* kTraceFooter =
    "\nA row per path, in the order they are tried, and why one is not usable. Then the needle is "
    "read,\n"
    "at most 4 MiB of it and into nowhere: how that ended is the exit code, as of read.\n";

constexpr const char* kStatsFooter =
    "\nWith --watch on a terminal the table is drawn anew each time; elsewhere each time is a "
    "line,\n"
    "with --json an object per line. Latencies are those since the daemon's start.\n";

constexpr const char* kPeersFooter =
    "\nRole target: this daemon asks the peer. Role gateway: the peer asks this daemon.\n"
    "Exits with 0 whether they are up or not, with 13 when there is no daemon.\n";

constexpr const char* kLoadgenFooter =
    "\nThe workers read the needles themselves, in turn, over and over: what reads cost without a\n"
    "program and its rings. At most 512 file ids. Ctrl-C ends the load and shows what there is; a\n"
    "second one does not wait for the reads in flight.\n"
    "Exits with 0 when every request was ok, with 20 when some ended with an error.\n"
    "\n"
    "Examples:\n"
    "  kelpctl loadgen 3,01637037d6 --depth 16\n"
    "  kelpctl loadgen --fids needles.txt --depth 64 --size 65536 --duration 30 --json\n";

constexpr const char* kBenchFooter =
    "\nA read after the other, the whole way of a program: through a ring of its own into memory "
    "it\n"
    "shares with the daemon. kelp-bench is for more than one at a time.\n"
    "Exits with 0 when every read was ok, with 20 when some were not.\n";

/// A needle may be larger; of it the first so many are read.
constexpr std::uint64_t kMostBenchBytes = 1 << 30;
constexpr std::uint64_t kMostBenchReads = 1'000'000'000;

constexpr const char* kDoctorFooter =
    "\nA line per check: ok, warn or fail, and what to do. Exits with 0 unless something fails.\n";

constexpr std::uint32_t kMostWatchS = 3600;

/// A descriptor we open must not become stdout by accident: bytes meant for a closed stdout would
/// go into the daemon's socket. Opened for reading only, so that writing there fails.
void occupy_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    (void)::open("/dev/null", O_RDONLY);
  }
}

/// CLI11 takes -1 for 2^64 - 1, and cuts what is larger to it: judge the text before it does.
CLI::Validator whole_number_from(std::uint64_t low) {
  return CLI::Validator(
      [low](const std::string& text) -> std::string {
        std::uint64_t number = 0;
        const char* end = text.data() + text.size();
        const auto [rest, failed] = std::from_chars(text.data(), end, number);
        if (failed == std::errc{} && rest == end && number >= low) return "";
        return "\"" + text + "\" is not a whole number from " + std::to_string(low) + " on";
      },
      "");
}

class Commands {
 public:
  Commands() : app_("kelpctl: reads needles through kelpd, and shows how it is", "kelpctl") {
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.footer(kFooter + ("\n" + std::string(kExitCodeHelp)));
    app_.add_option("--run-dir", common_.run_dir, "Directory of the daemon's sockets")
        ->type_name("DIR");
    app_.add_flag("--json", common_.json, "Answer with JSON");
    app_.set_version_flag("--version", std::string("kelpctl ") + kelp_version(),
                          "Print the version and exit");
    add_read();
    add_stat();
    add_trace();
    add_control_commands();
  }

  /// Throws what CLI11 throws.
  void parse(int argc, char** argv) { app_.parse(argc, argv); }
  Outcome<void> run() const { return command_(); }
  bool json() const { return common_.json; }
  const CLI::App& app() const { return app_; }

 private:
  void add_read() {
    CLI::App* read = app_.add_subcommand("read", "Write the bytes of a needle");
    read->footer(kReadFooter);
    add_needle_options(*read, read_.fid, read_.timeout_ms);
    read->add_option("--offset", read_.offset, "First byte to read (0)")
        ->type_name("BYTES")
        ->check(whole_number_from(0));
    read->add_option("--size", read_.size, "Bytes to read, at least 1; without it, to the end")
        ->type_name("BYTES")
        ->check(whole_number_from(1));
    read->add_option("--token", read_.token, "Read token, for a volume server that wants one")
        ->type_name("JWT");
    read->add_option("--volume-server", read_.volume_server,
                     "Volume server to ask first; the master must list it")
        ->type_name("HOST:PORT");
    read->add_option("-o,--output", read_.output, "Write to FILE instead of stdout")
        ->type_name("FILE");
    read->callback([this] { command_ = [this] { return run_read(common_, read_); }; });
  }

  void add_stat() {
    CLI::App* stat = app_.add_subcommand("stat", "Show size, checksum, times and name of a needle");
    add_needle_options(*stat, read_.fid, read_.timeout_ms);
    stat->callback([this] {
      command_ = [this]() -> Outcome<void> {
        const Outcome<std::string> text =
            run_stat(common_, read_.fid, read_.timeout_ms, stdout_has_colour());
        if (!text) return tl::unexpected(text.error());
        return write_stdout(*text);
      };
    });
  }

  void add_trace() {
    CLI::App* trace =
        app_.add_subcommand("trace", "Show the ways to a needle, and which one serves it");
    trace->footer(kTraceFooter);
    add_needle_options(*trace, trace_.fid, trace_.timeout_ms);
    trace->callback(
        [this] { command_ = [this] { return run_trace(common_, trace_, stdout_has_colour()); }; });
  }

  static void add_needle_options(CLI::App& command, std::string& fid, std::uint32_t& timeout_ms) {
    command.add_option("FID", fid, "File id: 3,01637037d6")->required();
    command.add_option("--timeout", timeout_ms, "Longest wait for one request (5000)")
        ->type_name("MS")
        ->check(CLI::Range(1u, kMaxTimeoutMs));
  }

  void add_control_commands() {
    CLI::App* health = app_.add_subcommand("health", "Show whether the daemon answers reads");
    health->footer(kHealthFooter);
    health->callback(
        [this] { command_ = [this] { return run_health(common_, stdout_has_colour()); }; });
    add_stats();
    add_ring_commands();
    add_loadgen();
    add_control("volumes", "List the volumes the daemon knows", &view_volumes);
    add_control("clients", "List the programs that are attached", &view_clients);
    add_control("peers", "List the connections with kelpds of other hosts", &view_peers)
        ->footer(kPeersFooter);
    add_control("devices",
                "List the RDMA devices of this host, and what keeps each from being used",
                &view_devices);
    add_control("config", "Show the daemon's settings and where each comes from", &view_config);
    add_doctor();
    add_action("reload", "Read the configuration file again", &view_reload);
    add_action("disable", "Send every read to HTTP, until enable", &view_status);
    add_action("enable", "Read volumes again, after disable", &view_status);
    add_action("drain", "Finish what is in flight, then end the daemon", &view_status);
  }

  void add_stats() {
    CLI::App* stats = app_.add_subcommand("stats", "Show counters and latencies of the workers");
    stats->footer(kStatsFooter);
    const CLI::Option* watch =
        stats->add_option("--watch", stats_.watch_s, "Show rates, every SECONDS (1), until Ctrl-C")
            ->type_name("[SECONDS]")
            ->expected(0, 1)
            ->check(CLI::Range(1u, kMostWatchS));
    stats->callback([this, watch] {
      if (watch->count() != 0) stats_.watch_s = std::max(stats_.watch_s, 1u);  // 0: no number given
      command_ = [this]() -> Outcome<void> {
        if (stats_.watch_s != 0) return watch_stats(common_, stats_.watch_s);
        return run_control(common_, "/stats", &view_stats, stdout_has_colour());
      };
    });
  }

  void add_ring_commands() {
    CLI::App* ping =
        app_.add_subcommand("ping", "Show how long the way to a worker and back takes");
    ping->add_option("--count", ping_.count, "Round trips (10)")
        ->type_name("N")
        ->check(CLI::Range(std::uint64_t{1}, kMostBenchReads));
    ping->add_option("--timeout", ping_.timeout_ms, "Longest wait for one (5000)")
        ->type_name("MS")
        ->check(CLI::Range(1u, kMaxTimeoutMs));
    ping->callback(
        [this] { command_ = [this] { return run_ping(common_, ping_, stdout_has_colour()); }; });

    CLI::App* bench =
        app_.add_subcommand("bench", "Read needles in turn, and show how fast it goes");
    bench->footer(kBenchFooter);
    bench->add_option("FID", bench_.fids, "File ids: 3,01637037d6")->required();
    bench->add_option("--count", bench_.count, "Reads (1000)")
        ->type_name("N")
        ->check(CLI::Range(std::uint64_t{1}, kMostBenchReads));
    bench->add_option("--size", bench_.size, "Bytes of each read, at most (4096)")
        ->type_name("BYTES")
        ->check(CLI::Range(std::uint64_t{1}, kMostBenchBytes));
    bench->add_option("--timeout", bench_.timeout_ms, "Longest wait for one read (5000)")
        ->type_name("MS")
        ->check(CLI::Range(1u, kMaxTimeoutMs));
    bench->callback(
        [this] { command_ = [this] { return run_bench(common_, bench_, stdout_has_colour()); }; });

    app_.add_subcommand("capabilities", "Show what the daemon can do, and up to what limits")
        ->callback([this] {
          command_ = [this] { return run_capabilities(common_, stdout_has_colour()); };
        });
  }

  void add_loadgen() {
    CLI::App* load =
        app_.add_subcommand("loadgen", "Have the workers read needles, and show how fast they are");
    load->footer(kLoadgenFooter);
    const auto add_number = [load](const char* name, auto& value, const char* unit,
                                   const char* help) {
      load->add_option(name, value, help)->type_name(unit)->check(whole_number_from(1));
    };
    CLI::Option* fids = load->add_option("FID", loadgen_.fids, "File ids: 3,01637037d6");
    load->add_option("--fids", loadgen_.fids_file, "File ids, one per line, of FILE; - is stdin")
        ->type_name("FILE")
        ->excludes(fids);
    add_number("--depth", loadgen_.depth, "N", "Reads in flight, of each worker (1)");
    add_number("--size", loadgen_.size, "BYTES", "Bytes of each read, at most (1048576)");
    load->add_option("--duration", loadgen_.duration_s, "How long, at most (10)")
        ->type_name("S")
        ->check(CLI::Range(0.001, kMaxLoadS));
    add_number("--count", loadgen_.count, "N", "Requests in all, at most");
    add_number("--timeout", loadgen_.timeout_ms, "MS", "Longest wait for one request (5000)");
    load->callback([this] {
      command_ = [this] { return run_loadgen(common_, loadgen_, stdout_has_colour()); };
    });
  }

  void add_doctor() {
    CLI::App* doctor =
        app_.add_subcommand("doctor", "Look for what is wrong, and say how to mend it");
    doctor->footer(kDoctorFooter);
    doctor
        ->add_option("--volume-dir", doctor_.volume_dirs, "Look at this directory too; repeatable")
        ->type_name("DIR")
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    doctor->callback([this] {
      command_ = [this] { return run_doctor(common_, doctor_, stdout_has_colour()); };
    });
  }

  void add_action(const std::string& name, const char* help, ControlView view) {
    app_.add_subcommand(name, help)->callback([this, name, view] {
      command_ = [this, name, view] {
        return run_action(common_, "/" + name, view, stdout_has_colour());
      };
    });
  }

  CLI::App* add_control(const std::string& name, const char* help, ControlView view) {
    return app_.add_subcommand(name, help)->callback([this, name, view] {
      command_ = [this, name, view] {
        return run_control(common_, "/" + name, view, stdout_has_colour());
      };
    });
  }

  CLI::App app_;
  CommonOptions common_;
  ReadOptions read_;
  TraceOptions trace_;
  PingOptions ping_;
  BenchOptions bench_;
  StatsOptions stats_;
  LoadgenOptions loadgen_;
  DoctorOptions doctor_;
  std::function<Outcome<void>()> command_;
};

int report(const Failure& failure, bool json) {
  const int code = static_cast<int>(failure.code);
  if (failure.what.empty()) return code;
  if (!json) {
    std::fprintf(stderr, "kelpctl: %s\n", printable(failure.what).c_str());
    return code;
  }
  nlohmann::json about = {{"error", failure.what}, {"exit_code", code}};
  if (!failure.word.empty()) about["status"] = failure.word;
  const std::string text = about.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  std::fprintf(stderr, "%s\n", text.c_str());
  return code;
}

int report_text(const std::string& text, bool json) {
  const Outcome<void> written = write_stdout(text);
  return written ? 0 : report(written.error(), json);
}

/// CLI11 misses a command before it looks at words it does not know.
std::string usage_problem(const CLI::App& app, const CLI::ParseError& error) {
  const std::vector<std::string> unknown = app.remaining();
  const bool no_command = dynamic_cast<const CLI::RequiredError*>(&error) != nullptr;
  if (no_command && !unknown.empty()) return "there is no command or option " + unknown.front();
  return error.what();
}

int parse_and_run(Commands& commands, int argc, char** argv) {
  try {
    commands.parse(argc, argv);
  } catch (const CLI::CallForVersion& version) {
    return report_text(std::string(version.what()) + "\n", false);
  } catch (const CLI::CallForHelp&) {
    return report_text(commands.app().help(), false);
  } catch (const CLI::ParseError& error) {
    const std::string what =
        usage_problem(commands.app(), error) + " (kelpctl --help lists what there is)";
    return report({ExitCode::kUsage, what}, commands.json());
  }
  const Outcome<void> done = commands.run();
  return done ? 0 : report(done.error(), commands.json());
}

}  // namespace

int run_kelpctl(int argc, char** argv) {
  occupy_standard_descriptors();
  ::signal(SIGPIPE, SIG_IGN);  // a write says EPIPE instead, and has an exit code
  try {
    Commands commands;
    return parse_and_run(commands, argc, argv);
  } catch (const std::exception& error) {
    return report({ExitCode::kOther, error.what()}, false);
  }
}

}  // namespace kelp
