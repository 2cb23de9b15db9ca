#include "tools/doctor.h"

#include <linux/io_uring.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/control_client.h"
#include "tools/control_command.h"
#include "tools/doctor_checks.h"
#include "tools/json_fields.h"
#include "tools/output_file.h"
#include "tools/session.h"
#include "tools/table.h"

namespace kelp {
namespace {

using nlohmann::json;

constexpr std::size_t kAttachBytes = 64 * 1024;

/// /config of the daemon, by key; nulls where there is no daemon.
class Settings {
 public:
  explicit Settings(json config) : config_(std::move(config)) {}

  std::string text(const std::string& key, const std::string& otherwise) const {
    const json& item = item_of(key);
    return item.is_null() ? otherwise : field_text(item, "value");
  }
  bool names_something(const std::string& key) const {
    return !field(item_of(key), "value").empty();
  }
  /// Values of all keys that start and end so: of every [[target.directory]].
  std::vector<std::string> all(const std::string& prefix, const std::string& suffix) const {
    std::vector<std::string> values;
    for (const json& item : items()) {
      const std::string key = field_text(item, "key");
      const std::string value = field_text(item, "value");
      if (key.starts_with(prefix) && key.ends_with(suffix) && !value.empty()) {
        values.push_back(value);
      }
    }
    return values;
  }

 private:
  const json& items() const {
    static const json none = json::array();
    const json& found = field(config_, "items");
    return found.is_array() ? found : none;
  }
  const json& item_of(const std::string& key) const {
    static const json none;
    for (const json& item : items()) {
      if (field_text(item, "key") == key) return item;
    }
    return none;
  }

  json config_;
};

std::uint64_t number_in(const std::string& path) {
  std::uint64_t number = 0;
  std::ifstream(path) >> number;
  return number;
}

Finding look_at_hugepages(const Settings& settings) {
  const std::string pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/";
  return judge_hugepages(number_in(pool + "nr_hugepages"), number_in(pool + "free_hugepages"),
                         settings.text("client.hugepages", "prefer"));
}

Finding look_at_cpus(const Settings& settings, std::uint64_t workers) {
  cpu_set_t set;
  CPU_ZERO(&set);
  const bool known = ::sched_getaffinity(0, sizeof set, &set) == 0;
  return judge_cpus(known ? static_cast<std::uint64_t>(CPU_COUNT(&set)) : 0, workers,
                    settings.text("worker.polling", "adaptive") == "poll");
}

/// What the daemon says of itself: its limit, and what RDMA would pin if there were a usable port.
Finding look_at_memlock(const json& locked, const RdmaState& rdma) {
  std::optional<RdmaMemory> memory;
  if ((rdma.used || rdma.listens) && !rdma.usable.empty()) {
    memory = {field_count(locked, "pinned_bytes").value_or(0),
              field_count(locked, "program_bytes").value_or(0)};
  }
  return judge_memlock(field_count(locked, "limit_bytes"), memory);
}

RdmaState rdma_state(const json& devices, const Settings& settings) {
  RdmaState state;
  state.used = settings.text("rdma.use", "yes") == "yes";
  state.listens = settings.names_something("rdma.listen");
  const json& error = field(devices, "error");
  if (error.is_string()) state.error = error.get<std::string>();
  const json& list = field(devices, "devices");
  if (!list.is_array()) return state;
  for (const json& device : list) {
    const std::string name = field_text(device, "name");
    const std::string trouble = field_text(device, "error");
    if (!trouble.empty() && trouble != "-") state.others.push_back(name + ": " + trouble);
    const json& ports = field(device, "ports");
    if (!ports.is_array()) continue;
    for (const json& port : ports) {
      const std::string where = name + " port " + field_text(port, "number");
      if (field(port, "usable") == true) {
        state.usable.push_back(where);
      } else {
        state.others.push_back(where + ": " + field_text(port, "obstacle"));
      }
    }
  }
  return state;
}

void look_at_rdma(const CommonOptions& common, const Settings& settings,
                  std::vector<Finding>& findings) {
  const Outcome<json> devices = ask_control(common, "/devices");
  const RdmaState state = rdma_state(devices ? *devices : json(), settings);
  if (devices) findings.push_back(look_at_memlock(field(*devices, "locked_memory"), state));
  findings.push_back(judge_rdma(state));
}

Finding look_at_io_uring() {
  io_uring_params parameters{};
  // As kelpd makes them: a kernel before 6.1 has io_uring and not these.
  parameters.flags =
      IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  const long fd = ::syscall(SYS_io_uring_setup, 1, &parameters);
  if (fd < 0) return judge_io_uring(errno);
  ::close(static_cast<int>(fd));
  return judge_io_uring(0);
}

Finding look_at_directory(const std::string& path) {
  struct statfs found {};
  if (::access(path.c_str(), R_OK | X_OK) != 0 || ::statfs(path.c_str(), &found) != 0) {
    return judge_directory(path, errno, 0);
  }
  return judge_directory(path, 0, static_cast<std::uint32_t>(found.f_type));
}

Finding look_at_run_dir(const std::string& socket) {
  const std::string run_dir = socket.substr(0, socket.rfind('/'));
  struct stat found {};
  if (::stat(run_dir.c_str(), &found) != 0) {
    return {Level::kFail, "run directory", run_dir + ": " + std::strerror(errno),
            "start kelpd, or name its directory with --run-dir"};
  }
  if ((found.st_mode & S_IWOTH) != 0 && (found.st_mode & S_ISVTX) == 0) {
    return {Level::kFail, "run directory", run_dir + ": every user may write there",
            "chmod o-w " + run_dir};
  }
  return {Level::kOk, "run directory", run_dir, ""};
}

void look_at_health(const json& health, std::vector<Finding>& findings) {
  const std::string status = field_text(health, "status");
  const Level level = status == "healthy"    ? Level::kOk
                      : status == "degraded" ? Level::kWarn
                                             : Level::kFail;
  findings.push_back({level, "daemon", status + ", pid " + field_text(health, "pid"), ""});
  const json& reasons = field(health, "reasons");
  if (reasons.is_array()) {
    for (const json& reason : reasons) {
      findings.push_back({level, "daemon", cell_text(reason), "kelpctl volumes, kelpctl health"});
    }
  }
  findings.push_back(judge_version(field_text(health, "version"), kelp_version()));
}

Finding look_at_attach(const CommonOptions& common) {
  const Outcome<Session> session = Session::open(common, kAttachBytes);
  if (session) return {Level::kOk, "attach", "a program of this user is let in", ""};
  return {Level::kFail, "attach", session.error().what,
          "be a member of the sockets' group; client.socket_group, client.allow_uids"};
}

Finding look_at_server(const std::string& url) {
  const Outcome<long> status = http_status(url + "/status");
  const std::string check = "server " + url;
  if (status && *status == 200) return {Level::kOk, check, "answers /status", ""};
  return {Level::kFail, check,
          status ? "/status is HTTP " + std::to_string(*status) : status.error().what,
          "start the volume server, or mend its url in the configuration"};
}

std::vector<Finding> examine(const CommonOptions& common, const DoctorOptions& options) {
  std::vector<Finding> findings;
  Outcome<json> health = ask_control(common, "/health");
  Outcome<json> config = ask_control(common, "/config");
  const Settings settings(config ? std::move(*config) : json());
  const std::uint64_t workers = health ? field_count(*health, "workers").value_or(1) : 1;

  findings.push_back(look_at_hugepages(settings));
  findings.push_back(look_at_io_uring());
  findings.push_back(look_at_cpus(settings, workers));
  findings.push_back(look_at_run_dir(control_socket_path(common)));
  if (health) {
    look_at_rdma(common, settings, findings);
    look_at_health(*health, findings);
    findings.push_back(look_at_attach(common));
  } else {
    findings.push_back(
        {Level::kFail, "daemon", health.error().what,
         "start it, or see why it ended: journalctl -u kelp-gateway, or kelp-target"});
  }
  std::vector<std::string> directories = options.volume_dirs;
  for (const char* suffix : {".path", ".idx_dir"}) {
    for (std::string& path : settings.all("target.", suffix)) directories.push_back(path);
  }
  for (const std::string& path : directories) findings.push_back(look_at_directory(path));
  for (const std::string& url : settings.all("target.", ".url")) {
    findings.push_back(look_at_server(url));
  }
  return findings;
}

std::string as_text(const std::vector<Finding>& findings, bool colour) {
  Table table({{""}, {"CHECK"}, {"FOUND"}, {"TO DO"}});
  for (const Finding& finding : findings) {
    const Tone tone = finding.level == Level::kOk     ? Tone::kGood
                      : finding.level == Level::kWarn ? Tone::kWarning
                                                      : Tone::kBad;
    table.add(
        {{level_name(finding.level), tone}, {finding.check}, {finding.detail}, {finding.remedy}});
  }
  return table.text(colour);
}

std::string as_json(const std::vector<Finding>& findings) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const Finding& finding : findings) {
    list.push_back({{"level", level_name(finding.level)},
                    {"check", finding.check},
                    {"found", finding.detail},
                    {"remedy", finding.remedy}});
  }
  const nlohmann::ordered_json answer{{"worst", level_name(worst_of(findings))},
                                      {"findings", std::move(list)}};
  return answer.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

Outcome<void> run_doctor(const CommonOptions& common, const DoctorOptions& options, bool colour) {
  const std::vector<Finding> findings = examine(common, options);
  Outcome<void> written = write_stdout(common.json ? as_json(findings) : as_text(findings, colour));
  if (!written || worst_of(findings) != Level::kFail) return written;
  return fail(ExitCode::kOther, "");  // the lines have said it all
}

}  // namespace kelp
