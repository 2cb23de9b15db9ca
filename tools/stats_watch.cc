#include "tools/stats_watch.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/control_command.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp {
namespace {

using nlohmann::json;

constexpr const char* kClearScreen = "\x1b[H\x1b[2J";
constexpr std::uint32_t kLinesPerHeader = 20;

volatile sig_atomic_t asked_to_end = 0;

void end_on_signals() {
  struct sigaction action {};
  action.sa_handler = [](int) { asked_to_end = 1; };  // without SA_RESTART: the sleep ends
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

double number(const json& object, const char* key) {
  const json& value = field(object, key);
  return value.is_number() ? value.get<double>() : 0;
}

/// 0 where the counter went back: it is another daemon's.
double rate(const json& before, const json& now, const char* key, double seconds) {
  const double grown = number(now, key) - number(before, key);
  return grown > 0 ? grown / seconds : 0;
}

double not_ok(const json& before, const json& now, double seconds) {
  double sum = 0;
  if (!now.is_object()) return 0;
  for (const auto& [name, unused] : now.items()) {
    if (name.starts_with("completions_") && name != "completions_ok") {
      sum += rate(before, now, name.c_str(), seconds);
    }
  }
  return sum;
}

const json* worker_of(const json& stats, const std::string& id) {
  const json& workers = field(stats, "workers");
  if (!workers.is_array()) return nullptr;
  for (const json& worker : workers) {
    if (field_text(worker, "id") == id) return &worker;
  }
  return nullptr;
}

Table table_of(const std::vector<WorkerRates>& rates) {
  Table table({{"WORKER", true},
               {"READS/s", true},
               {"BYTES/s", true},
               {"NOT OK/s", true},
               {"STORAGE/s", true},
               {"SLEEPS/s", true},
               {"CPU", true},
               {"P50 us", true},
               {"P99 us", true}});
  for (const WorkerRates& worker : rates) {
    table.add({{worker.id},
               {fixed(worker.reads, 0)},
               {human_bytes(static_cast<std::uint64_t>(worker.bytes))},
               {fixed(worker.not_ok, 0), worker.not_ok > 0 ? Tone::kWarning : Tone::kPlain},
               {fixed(worker.storage_waits, 0)},
               {fixed(worker.sleeps, 0)},
               {fixed(worker.cpu * 100, 1) + " %"},
               {worker.p50_us},
               {worker.p99_us}});
  }
  return table;
}

std::string plain_lines(const std::vector<WorkerRates>& rates, std::uint32_t round) {
  std::string text;
  if (round % kLinesPerHeader == 0) {
    text += "worker reads/s bytes/s not_ok/s storage_waits/s sleeps/s cpu_percent p50_us p99_us\n";
  }
  for (const WorkerRates& worker : rates) {
    text += printable(worker.id) + " " + fixed(worker.reads, 0) + " " + fixed(worker.bytes, 0) +
            " " + fixed(worker.not_ok, 0) + " " + fixed(worker.storage_waits, 0) + " " +
            fixed(worker.sleeps, 0) + " " + fixed(worker.cpu * 100, 1) + " " +
            printable(worker.p50_us) + " " + printable(worker.p99_us) + "\n";
  }
  return text;
}

std::string json_line(const std::vector<WorkerRates>& rates) {
  nlohmann::ordered_json workers = nlohmann::ordered_json::array();
  for (const WorkerRates& worker : rates) {
    workers.push_back({{"id", worker.id},
                       {"reads_per_s", worker.reads},
                       {"bytes_per_s", worker.bytes},
                       {"not_ok_per_s", worker.not_ok},
                       {"storage_waits_per_s", worker.storage_waits},
                       {"sleeps_per_s", worker.sleeps},
                       {"cpu", worker.cpu}});
  }
  const nlohmann::ordered_json line{{"workers", std::move(workers)}};
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

/// False: a signal has ended the wait.
bool wait_s(std::uint32_t seconds) {
  timespec left{static_cast<time_t>(seconds), 0};
  while (asked_to_end == 0 && ::nanosleep(&left, &left) != 0) {
    if (errno != EINTR) return false;
  }
  return asked_to_end == 0;
}

}  // namespace

std::vector<WorkerRates> worker_rates(const json& before, const json& now) {
  const double seconds = number(now, "uptime_s") - number(before, "uptime_s");
  std::vector<WorkerRates> rates;
  const json& workers = field(now, "workers");
  if (!(seconds > 0) || !workers.is_array()) return rates;
  for (const json& worker : workers) {
    WorkerRates entry;
    entry.id = field_text(worker, "id");
    const json* earlier = worker_of(before, entry.id);
    if (earlier == nullptr) continue;
    const json& old_counts = field(*earlier, "counters");
    const json& counts = field(worker, "counters");
    entry.reads = rate(old_counts, counts, "reads", seconds);
    entry.bytes = rate(old_counts, counts, "bytes", seconds);
    entry.not_ok = not_ok(old_counts, counts, seconds);
    entry.storage_waits = rate(old_counts, counts, "storage_waits", seconds);
    entry.sleeps = rate(old_counts, counts, "sleeps", seconds);
    entry.cpu = rate(*earlier, worker, "cpu_time_s", seconds);
    const json& latency = field(field(worker, "latency_us"), "read");
    entry.p50_us = field_text(latency, "p50");
    entry.p99_us = field_text(latency, "p99");
    rates.push_back(std::move(entry));
  }
  return rates;
}

Outcome<void> watch_stats(const CommonOptions& common, std::uint32_t period_s) {
  end_on_signals();
  const bool terminal = ::isatty(STDOUT_FILENO) == 1;
  Outcome<json> before = ask_control(common, "/stats");
  for (std::uint32_t round = 0; before; ++round) {
    if (!wait_s(period_s)) return {};
    Outcome<json> now = ask_control(common, "/stats");
    if (asked_to_end != 0) return {};
    if (!now) return tl::unexpected(now.error());
    const std::vector<WorkerRates> rates = worker_rates(*before, *now);
    std::string text;
    if (common.json) {
      text = json_line(rates);
    } else if (terminal) {
      text = kClearScreen + table_of(rates).text(stdout_has_colour());
    } else {
      text = plain_lines(rates, round);
    }
    if (Outcome<void> written = write_stdout(text); !written) return written;
    before = std::move(now);
  }
  return tl::unexpected(before.error());
}

}  // namespace kelp
