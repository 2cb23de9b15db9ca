#include "tools/loadgen_command.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "tools/control_client.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/session.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp {
namespace {

using nlohmann::json;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kMostFids = 512;
/// Of the file ids with their semicolons. The daemon takes 16 KiB of request line and headers.
constexpr std::size_t kMostFidBytes = 14 * 1024;
constexpr long kPauseNs = 100'000'000;
constexpr const char* kClearLine = "\r\x1b[K";

volatile sig_atomic_t asked_to_end = 0;  // and how often, as far as anybody cares

void end_on_signals() {
  struct sigaction action {};
  // Without SA_RESTART: the pause ends.
  action.sa_handler = [](int) { asked_to_end = asked_to_end == 0 ? 1 : 2; };
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

/// Puts file ids together until no more are taken.
class Collector {
 public:
  Outcome<void> add(const std::string& text) {
    ++needles_.named;
    if (full_) return {};
    Outcome<std::string> fid = canonical_fid(text);
    if (!fid) return tl::unexpected(fid.error());
    bytes_ += fid->size() + 1;
    full_ = needles_.fids.size() == kMostFids || bytes_ > kMostFidBytes;
    if (!full_) needles_.fids.push_back(std::move(*fid));
    return {};
  }
  LoadNeedles take() { return std::move(needles_); }

 private:
  LoadNeedles needles_;
  std::size_t bytes_ = 0;
  bool full_ = false;
};

Outcome<LoadNeedles> read_needles(std::istream& lines, const std::string& name) {
  Collector collector;
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with('#')) continue;
    const Outcome<void> added = collector.add(line);
    if (added) continue;
    return fail(ExitCode::kUsage,
                name + ", line " + std::to_string(number) + ": " + added.error().what);
  }
  if (lines.bad()) return fail(ExitCode::kOther, "cannot read " + name);
  LoadNeedles needles = collector.take();
  if (needles.fids.empty()) return fail(ExitCode::kUsage, name + " names no file ids");
  return needles;
}

// ---- the daemon -------------------------------------------------------------------------------

struct Report {
  json value;
  std::string body;

  bool running() const { return field(value, "state") == "running"; }
};

/// A report out of what answered `path`, or the sentence the daemon has instead.
Outcome<Report> judge(const CommonOptions& common, const char* path, ControlAnswer answer) {
  json value = json::parse(answer.body, nullptr, false);
  if (!value.is_object()) {
    return fail(ExitCode::kOther, std::string("what answers ") + path + " at " +
                                      control_socket_path(common) + " is not JSON (HTTP " +
                                      std::to_string(answer.status) +
                                      "): is it a kelpd of this version?");
  }
  const std::string sentence = field_text(value, "error");
  switch (answer.status) {
    case 200:
      return Report{std::move(value), std::move(answer.body)};
    case 400:
      return fail(ExitCode::kUsage, sentence);
    case 409:
    case 503:
      return fail(ExitCode::kOther, sentence);
    default:
      return fail(ExitCode::kOther, std::string("kelpd answers ") + path + " with HTTP " +
                                        std::to_string(answer.status) + ": " + sentence);
  }
}

Outcome<Report> get_report(const CommonOptions& common) {
  Outcome<ControlAnswer> answer = control_get(common, "/loadgen");
  if (!answer) return tl::unexpected(answer.error());
  return judge(common, "/loadgen", std::move(*answer));
}

Outcome<Report> post(const CommonOptions& common, const std::string& path) {
  Outcome<ControlAnswer> answer = control_post(common, path);
  if (!answer) return tl::unexpected(answer.error());
  return judge(common, "/loadgen", std::move(*answer));
}

// ---- waiting ----------------------------------------------------------------------------------

/// One line on stderr that is written anew, if that is a terminal.
class Progress {
 public:
  void show(const json& report) const {
    if (!terminal_) return;
    const double seconds = std::chrono::duration<double>(Clock::now() - began_).count();
    std::fprintf(stderr, "%s%s requests, %s s", kClearLine,
                 printable(field_text(report, "requests")).c_str(), fixed(seconds, 1).c_str());
  }
  ~Progress() {
    if (terminal_) std::fputs(kClearLine, stderr);
  }

 private:
  const bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  const Clock::time_point began_ = Clock::now();
};

void pause_shortly() {
  const timespec pause{0, kPauseNs};
  ::nanosleep(&pause, nullptr);
}

/// Looks at the load until it is over, or nobody wants to wait any longer.
Outcome<Report> watch(const CommonOptions& common, Report report) {
  const Progress progress;
  bool stopped = false;
  while (report.running() && asked_to_end < 2) {
    progress.show(report.value);
    if (asked_to_end == 0 || stopped) pause_shortly();
    const bool stop = asked_to_end != 0 && !stopped;
    Outcome<Report> next = stop ? post(common, "/loadgen/stop") : get_report(common);
    if (!next) {
      // Nobody looks any longer, so it should not go on.
      if (next.error().code != ExitCode::kNoDaemon) (void)control_post(common, "/loadgen/stop");
      return next;
    }
    stopped = stopped || stop;
    report = std::move(*next);
  }
  if (field(report.value, "state") == "idle") {
    return fail(ExitCode::kNoDaemon, "kelpd knows of no load any more: it was started anew");
  }
  return report;
}

// ---- for people -------------------------------------------------------------------------------

/// "12.34 us"; what is no number as it is.
Cell number_cell(const json& object, const char* key, int digits, const char* unit = "") {
  const json& value = field(object, key);
  return {value.is_number() ? fixed(value.get<double>(), digits) + unit : cell_text(value)};
}

Cell byte_rate_cell(const json& report) {
  constexpr double kMost = 1e18;  // beyond, the number fits no integer of ours
  const json& value = field(report, "bytes_per_s");
  const double bytes = value.is_number() ? value.get<double>() : -1;
  if (!(bytes >= 0 && bytes < kMost)) return {cell_text(value)};
  return {human_bytes(static_cast<std::uint64_t>(bytes))};
}

std::string per_cpu_second(const json& report) {
  const json& requests = field(report, "requests");
  const json& cpu_s = field(report, "worker_cpu_s");
  if (!requests.is_number() || !cpu_s.is_number() || !(cpu_s.get<double>() > 0)) return "-";
  return fixed(requests.get<double>() / cpu_s.get<double>(), 0);
}

/// Names of statuses that are not ok, with their counts.
std::vector<std::string> failures(const json& report) {
  std::vector<std::string> texts;
  const json& statuses = field(report, "statuses");
  if (!statuses.is_object()) return texts;
  for (const auto& [name, count] : statuses.items()) {
    if (name != "ok" && count != 0) texts.push_back(cell_text(count) + " " + name);
  }
  return texts;
}

void add_latencies(const json& latency, FactList& facts) {
  constexpr std::pair<const char*, const char*> kQuantiles[] = {
      {"p50", "p50"}, {"p90", "p90"}, {"p99", "p99"}, {"p99.9", "p999"}, {"max", "max"}};
  for (const auto& [shown, key] : kQuantiles) {
    facts.add(std::string("latency ") + shown, number_cell(latency, key, 2, " us"));
  }
}

}  // namespace

Outcome<LoadNeedles> load_needles(const LoadgenOptions& options) {
  if (options.fids_file == "-") return read_needles(std::cin, "stdin");
  if (!options.fids_file.empty()) {
    std::ifstream file(options.fids_file);
    if (file) return read_needles(file, options.fids_file);
    return fail(ExitCode::kUsage, "cannot open " + options.fids_file + ": " + std::strerror(errno));
  }
  if (options.fids.empty()) {
    return fail(ExitCode::kUsage, "loadgen needs file ids: FID..., or --fids FILE");
  }
  Collector collector;
  for (const std::string& fid : options.fids) {
    if (Outcome<void> added = collector.add(fid); !added) return tl::unexpected(added.error());
  }
  return collector.take();
}

std::string loadgen_path(const LoadgenOptions& options, const std::vector<std::string>& fids) {
  std::string path = "/loadgen?fids=";
  for (const std::string& fid : fids) path += (path.ends_with('=') ? "" : ";") + fid;
  path += "&depth=" + std::to_string(options.depth) + "&size=" + std::to_string(options.size) +
          "&ms=" + std::to_string(std::llround(options.duration_s * 1000)) +
          "&timeout_ms=" + std::to_string(options.timeout_ms);
  if (options.count) path += "&count=" + std::to_string(*options.count);
  return path;
}

std::string view_loadgen(const json& report, bool colour) {
  FactList facts;
  const std::string state = field_text(report, "state");
  if (state != "done") facts.add("state", {state, Tone::kWarning});
  facts.add("requests", {field_text(report, "requests")});
  facts.add("seconds", number_cell(report, "seconds", 3));
  facts.add("requests/s", number_cell(report, "requests_per_s", 0));
  facts.add("bytes/s", byte_rate_cell(report));
  add_latencies(field(report, "latency_us"), facts);
  facts.add("CPU of workers", number_cell(report, "worker_cpu_s", 3, " s"));
  facts.add("requests/CPU s", {per_cpu_second(report)});
  for (std::string& failure : failures(report)) {
    facts.add("not ok", {std::move(failure), Tone::kBad});
  }
  const json& paths = field(report, "paths");
  if (paths.is_object()) {
    for (const auto& [name, count] : paths.items()) {
      facts.add("path", {cell_text(count) + " " + name});
    }
  }
  return facts.text(colour);
}

Outcome<void> run_loadgen(const CommonOptions& common, const LoadgenOptions& options, bool colour) {
  const Outcome<LoadNeedles> needles = load_needles(options);
  if (!needles) return tl::unexpected(needles.error());
  if (needles->fids.size() < needles->named) {
    std::fprintf(stderr,
                 "kelpctl: %zu file ids are too many for one load: the first %zu are taken\n",
                 needles->named, needles->fids.size());
  }
  end_on_signals();
  Outcome<Report> report = post(common, loadgen_path(options, needles->fids));
  if (!report) return tl::unexpected(report.error());
  report = watch(common, std::move(*report));
  if (!report) return tl::unexpected(report.error());
  std::string text = common.json ? report->body : view_loadgen(report->value, colour);
  if (!text.ends_with('\n')) text += '\n';
  if (Outcome<void> written = write_stdout(text); !written) return written;
  if (!failures(report->value).empty()) return fail(ExitCode::kReadsFailed, "");
  return {};
}

}  // namespace kelp
