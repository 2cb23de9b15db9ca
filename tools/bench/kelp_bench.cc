#include "tools/bench/kelp_bench.h"

#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>

#include "tools/bench/hdr_log.h"
#include "tools/bench/prepare.h"
#include "tools/bench/report.h"
#include "tools/output_file.h"
#include "tools/table.h"

namespace kelp::bench {
namespace {

constexpr const char* kFooter =
    "\nThe daemon is the one of --run-dir, else of $KELP_RUN_DIR, else of /run/kelp.\n"
    "Defaults are in parentheses. SIGINT ends a run with the results so far.\n"
    "\n"
    "Exit codes:\n"
    "   0  every read was answered, with the right bytes\n"
    "   1  anything else             13  no daemon, refused or disconnected\n"
    "   2  usage, or a bad file id   14  cannot write the output\n"
    "   9  answers stopped coming    20  some reads ended with an error\n"
    "                                21  some answers had wrong bytes\n"
    "\n"
    "Examples:\n"
    "  kelp-bench --fids fids.txt --depth 32 --batch 8 --duration 30\n"
    "  kelp-bench --volume 3 --range random:4KiB --order zipf:0.9\n"
    "  kelp-bench --fids fids.txt --against-http 127.0.0.1:8080 --verify http://127.0.0.1:8080\n";

/// Reads of each thread that are not counted at the start of a slice: they wake what slept during
/// the other side's.
constexpr std::uint64_t kUncountedReads = 8;

std::atomic<bool> interrupted{false};

/// Once: a second signal ends the program.
void end_on_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted.store(true, std::memory_order_relaxed); };
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
}

/// The log of --hdr-log; nothing happens without that option.
class HdrLog {
 public:
  explicit HdrLog(std::string path) : path_(std::move(path)) {
    if (path_.empty()) return;
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    text_ = hdr_log_head(std::chrono::duration<double>(now).count());
  }

  /// What was recorded since the last call, or since begin().
  void add(const char* tag, double length_s, const Histogram& histogram) {
    if (path_.empty()) return;
    text_ += hdr_log_line(tag, at_s_, length_s, histogram);
    at_s_ += length_s;
  }

  Outcome<void> write() const {
    if (path_.empty()) return {};
    auto file = OutputFile::open(path_);
    if (!file) return tl::unexpected(file.error());
    if (auto written = file->write(text_.data(), text_.size()); !written) return written;
    return file->commit();
  }

 private:
  std::string path_;
  std::string text_;
  double at_s_ = 0;
};

/// Cuts running totals into intervals for the log, and shows that something happens.
class Watcher {
 public:
  Watcher(HdrLog& log, bool progress) : log_(log), progress_(progress) {}

  void look(const Histogram& latency, double seconds) {
    auto interval = std::make_unique<Histogram>();
    interval->add(latency);
    interval->subtract(*seen_);
    log_.add("kelp", seconds - seen_s_, *interval);
    if (progress_) {
      const double rate = static_cast<double>(interval->count()) / (seconds - seen_s_);
      std::fprintf(stderr, "%6.0f s  %10.0f reads/s  p50 %.2f us  p99 %.2f us\n", seconds, rate,
                   static_cast<double>(interval->quantile(0.5)) / 1000,
                   static_cast<double>(interval->quantile(0.99)) / 1000);
    }
    seen_ = std::make_unique<Histogram>();
    seen_->add(latency);
    seen_s_ = seconds;
  }

 private:
  HdrLog& log_;
  bool progress_;
  std::unique_ptr<Histogram> seen_ = std::make_unique<Histogram>();
  double seen_s_ = 0;
};

Stop stop_after(double seconds) {
  Stop stop;
  stop.until =
      ticks_now() + TickRate::instance().from_us(static_cast<std::uint64_t>(seconds * 1e6));
  stop.interrupted = &interrupted;
  return stop;
}

Stop stop_after_reads(std::uint64_t reads) {
  Stop stop;
  stop.reads = reads;
  stop.interrupted = &interrupted;
  return stop;
}

class Benchmark {
 public:
  explicit Benchmark(const Options& options) : options_(options), log_(options.hdr_log) {}

  Outcome<std::unique_ptr<Results>> run() {
    auto work = prepare_work(options_);
    if (!work) return tl::unexpected(work.error());
    work_ = std::move(*work);
    if (auto opened = open_readers(); !opened) return tl::unexpected(opened.error());
    daemon_ = daemon_cpu(options_.common);
    if (auto warm = warm_up(); !warm) return tl::unexpected(warm.error());
    results_->objects = work_->objects.size();
    results_->verified = work_->verify;
    const Outcome<void> done = options_.against_http.empty() ? measure() : compare();
    if (!done) return tl::unexpected(done.error());
    results_->interrupted = interrupted.load();
    if (auto written = log_.write(); !written) return tl::unexpected(written.error());
    return std::move(results_);
  }

 private:
  Outcome<void> open_readers() {
    auto connection = attach(options_, *work_);
    if (!connection) return tl::unexpected(connection.error());
    connection_ = std::move(*connection);
    for (std::uint32_t thread = 0; thread < options_.threads; ++thread) {
      auto reader = KelpReader::open(connection_.get(), options_, *work_, thread);
      if (!reader) return tl::unexpected(reader.error());
      kelp_.push_back(std::move(*reader));
      if (options_.against_http.empty()) continue;
      auto http = HttpReader::open(options_.against_http, options_, *work_, thread);
      if (!http) return tl::unexpected(http.error());
      http_.push_back(std::move(*http));
    }
    return {};
  }

  Outcome<void> warm_up() {
    for (const Readers* side : {&kelp_, &http_}) {
      if (side->empty() || options_.warm_up_s == 0) continue;
      const auto warm = run_readers(*side, stop_after(options_.warm_up_s), {});
      if (!warm) return tl::unexpected(warm.error());
    }
    return {};
  }

  Outcome<void> measure() {
    Watcher watcher(log_, !options_.quiet && ::isatty(STDERR_FILENO) == 1);
    const Stop stop =
        options_.count == 0 ? stop_after(options_.duration_s) : stop_after_reads(options_.count);
    const auto look = [&](const Histogram& latency, double s) { watcher.look(latency, s); };
    const auto measured = run_readers(kelp_, stop, daemon_, look);
    if (!measured) return tl::unexpected(measured.error());
    // What came after the last look.
    watcher.look((*measured)->tally.latency, (*measured)->seconds);
    results_->kelp.add(**measured);
    return {};
  }

  Outcome<std::unique_ptr<Measured>> slice(const Readers& side, const ProcessCpu& server,
                                           const char* tag) {
    const std::uint64_t uncounted = std::max<std::uint64_t>(kUncountedReads, options_.depth);
    auto awake = run_readers(side, stop_after_reads(uncounted * options_.threads), {});
    if (!awake) return awake;
    auto measured = run_readers(side, stop_after(options_.slice_ms / 1e3), server);
    if (measured) log_.add(tag, (*measured)->seconds, (*measured)->tally.latency);
    return measured;
  }

  Outcome<void> compare() {
    const ProcessCpu http_server(options_.http_pid);
    results_->http.emplace();
    for (std::uint32_t pair = 0; pair < options_.pairs && !interrupted.load(); ++pair) {
      const auto http = slice(http_, http_server, "http");
      if (!http) return tl::unexpected(http.error());
      const auto kelp = slice(kelp_, daemon_, "kelp");
      if (!kelp) return tl::unexpected(kelp.error());
      results_->http->add(**http);
      results_->kelp.add(**kelp);
      // A slice that was cut short is no equal of the other.
      if (!interrupted.load()) results_->ratios.add(**kelp, **http);
    }
    return {};
  }

  const Options& options_;
  HdrLog log_;
  std::unique_ptr<Work> work_;
  Connection connection_;
  Readers kelp_, http_;
  ProcessCpu daemon_;
  std::unique_ptr<Results> results_ = std::make_unique<Results>();
};

int report(const Failure& failure) {
  if (!failure.what.empty()) {
    std::fprintf(stderr, "kelp-bench: %s\n", printable(failure.what).c_str());
  }
  return static_cast<int>(failure.code);
}

ExitCode judge(const Results& results) {
  const Tally& kelp = results.kelp.tally;
  const bool http_wrong = results.http && results.http->tally.wrong != 0;
  if (kelp.wrong != 0 || http_wrong) return kWrongBytes;
  const bool http_failed = results.http && results.http->tally.error_count() != 0;
  return kelp.error_count() != 0 || http_failed ? kReadsFailed : ExitCode::kOk;
}

int measure_and_report(const Options& options) {
  const std::string wrong = contradiction(options);
  if (!wrong.empty()) return report({ExitCode::kUsage, wrong + " (kelp-bench --help)"});
  end_on_signals();
  const auto results = Benchmark(options).run();
  if (!results) return report(results.error());
  const std::string text = options.common.json ? report_json(**results, options)
                                               : report_table(**results, stdout_has_colour());
  if (auto written = write_stdout(text); !written) return report(written.error());
  return static_cast<int>(judge(**results));
}

}  // namespace

int run_kelp_bench(int argc, char** argv) {
  CLI::App app("kelp-bench: reads needles through kelpd as fast as it answers, and says how fast",
               "kelp-bench");
  Options options;
  app.footer(kFooter);
  app.set_version_flag("--version", std::string("kelp-bench ") + kelp_version(),
                       "Print the version and exit");
  try {
    declare(app, options);
    app.parse(argc, argv);
    return measure_and_report(options);
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    return 0;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return 0;
  } catch (const CLI::ParseError& error) {
    return report({ExitCode::kUsage, std::string(error.what()) + " (kelp-bench --help)"});
  } catch (const std::exception& error) {
    return report({ExitCode::kOther, error.what()});
  }
}

}  // namespace kelp::bench
