#include "control/load_control.h"

#include <algorithm>
#include <charconv>
#include <new>
#include <optional>
#include <string>
#include <string_view>

#include "control/report_json.h"
#include "shm_ring/kelp.h"

namespace kelp {
namespace {

constexpr std::size_t kMostFids = 512;
constexpr std::uint64_t kMostDepth = 1024;
constexpr std::uint64_t kMostBufferBytes = 64 << 20;
constexpr std::uint64_t kMostMemoryBytes = 1 << 30;
constexpr std::uint64_t kMostMs = 600'000;

/// `text` as a whole number from `low` to `high`; nullopt if it is none.
std::optional<std::uint64_t> whole(std::string_view text, std::uint64_t low, std::uint64_t high) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, failed] = std::from_chars(text.data(), end, number);
  if (failed != std::errc{} || rest != end || number < low || number > high) return std::nullopt;
  return number;
}

struct Wish {
  LoadPlan plan;
  std::string error;
};

/// Takes `name` out of `query` into `value`, where it is given.
void take(std::map<std::string, std::string>& query, const char* name, std::uint64_t low,
          std::uint64_t high, std::uint64_t& value, std::string& error) {
  const auto given = query.extract(name);
  if (given.empty()) return;
  const auto number = whole(given.mapped(), low, high);
  if (number) {
    value = *number;
  } else {
    error = std::string(name) + " is a whole number from " + std::to_string(low) + " to " +
            std::to_string(high);
  }
}

Wish read_wish(std::map<std::string, std::string> query) {
  Wish wish;
  const auto given = query.extract("fids");
  std::string_view fids = given.empty() ? std::string_view() : std::string_view(given.mapped());
  while (!fids.empty()) {
    const std::string_view text = fids.substr(0, fids.find(';'));
    fids.remove_prefix(std::min(fids.size(), text.size() + 1));
    const auto fid = parse_file_id(text);
    if (!fid) return {{}, "\"" + std::string(text) + "\" is no file id like 3,01637037d6"};
    wish.plan.fids.push_back(*fid);
  }
  if (wish.plan.fids.empty() || wish.plan.fids.size() > kMostFids) {
    return {{}, "fids names 1 to " + std::to_string(kMostFids) + " needles: fids=FID;FID;..."};
  }
  std::uint64_t depth = 1;
  std::uint64_t size = 1 << 20;
  std::uint64_t ms = 10'000;
  std::uint64_t timeout_ms = 5000;
  take(query, "depth", 1, kMostDepth, depth, wish.error);
  take(query, "size", 1, kMostBufferBytes, size, wish.error);
  take(query, "ms", 1, kMostMs, ms, wish.error);
  take(query, "timeout_ms", 1, kMostMs, timeout_ms, wish.error);
  take(query, "count", 1, UINT64_MAX, wish.plan.requests, wish.error);
  if (!query.empty()) wish.error = "\"" + query.begin()->first + "\" is nothing loadgen takes";
  if (depth * size > kMostMemoryBytes) wish.error = "depth times size is more than 1 GiB";
  wish.plan.depth = static_cast<std::uint32_t>(depth);
  wish.plan.buffer_bytes = static_cast<std::uint32_t>(size);
  wish.plan.duration = std::chrono::milliseconds(ms);
  wish.plan.timeout = std::chrono::milliseconds(timeout_ms);
  return wish;
}

/// What one worker does of a load.
struct Share {
  Worker* worker;
  LoadPlan plan;
};

/// One for each worker that owns a volume of the plan's needles.
std::vector<Share> shares_of(const LoadPlan& plan,
                             const std::vector<std::unique_ptr<Worker>>& workers) {
  std::vector<Share> shares;
  for (const auto& worker : workers) {
    const WorkerOptions& options = worker->options();
    Share share{worker.get(), plan};
    std::erase_if(share.plan.fids, [&](const FileId& fid) {
      return owner_of(fid.volume, options.workers) != options.index;
    });
    if (!share.plan.fids.empty()) shares.push_back(std::move(share));
  }
  for (std::size_t i = 0; i < shares.size(); ++i) {
    const bool one_more = i < plan.requests % shares.size();
    shares[i].plan.requests = plan.requests / shares.size() + (one_more ? 1 : 0);
  }
  return shares;
}

}  // namespace

HttpResponse LoadControl::start(const HttpRequest& request,
                                const std::vector<std::unique_ptr<Worker>>& workers,
                                MemoryRegistrar* registrar) {
  if (running()) return http_error(409, "a load is under way; POST /loadgen/stop ends it");
  const Wish wish = read_wish(request.query);
  if (!wish.error.empty()) return http_error(400, wish.error);
  std::vector<Share> shares = shares_of(wish.plan, workers);
  forget_loads();
  registrar_ = registrar;
  try {
    for (Share& share : shares) {
      loads_.push_back(std::make_unique<LoadGenerator>(std::move(share.plan)));
    }
  } catch (const std::bad_alloc&) {
    forget_loads();
    return http_error(503, "there is no memory for the buffers");
  }
  for (const auto& load : loads_) {
    if (registrar_ != nullptr) registrar_->add(load->memory(), load->region_keys());
  }
  for (std::size_t i = 0; i < loads_.size(); ++i) {
    // Its queue is that of every client that comes or goes: full only for a moment.
    if (shares[i].worker->command({WorkerCommand::Kind::kGenerate, nullptr, loads_[i].get()})) {
      continue;
    }
    for (std::size_t unsent = i; unsent < loads_.size(); ++unsent) loads_[unsent]->refuse();
    stop();
    return http_error(503, "a worker has too many messages waiting");
  }
  return report();
}

HttpResponse LoadControl::stop() {
  for (const auto& load : loads_) load->stop();
  return report();
}

void LoadControl::forget_loads() {
  for (const auto& load : loads_) {
    if (registrar_ != nullptr) registrar_->remove(load->region_keys());
  }
  loads_.clear();
}

bool LoadControl::running() const {
  return std::ranges::any_of(loads_, [](const auto& load) { return !load->finished(); });
}

HttpResponse LoadControl::report() const {
  const bool done = !running();
  std::uint64_t requests = 0;
  std::uint64_t bytes = 0;
  double seconds = 0;
  double cpu_s = 0;
  ReportJson statuses = ReportJson::object();
  ReportJson paths = ReportJson::object();
  const auto latency = std::make_unique<Histogram>();
  const auto count = [](ReportJson& counts, const char* name, std::uint64_t more) {
    if (more != 0) counts[name] = counts.value(name, std::uint64_t{0}) + more;
  };
  for (const auto& load : loads_) {
    requests += load->requests();
    bytes += load->bytes();
    latency->add(load->latency());
    for (int i = 0; i < LoadGenerator::kStatuses; ++i) {
      const auto status = static_cast<kelp_status>(i);
      count(statuses, kelp_status_name(status), load->of_status(status));
    }
    for (int i = 0; i < LoadGenerator::kPaths; ++i) {
      const auto path = static_cast<kelp_path>(i);
      count(paths, kelp_path_name(path), load->of_path(path));
    }
    if (!done) continue;
    seconds = std::max(seconds, load->seconds());
    cpu_s += load->cpu_seconds();
  }
  const auto us = [&](double fraction) {
    return static_cast<double>(latency->quantile(fraction)) / 1000;
  };
  ReportJson about{{"state", loads_.empty() ? "idle" : (done ? "done" : "running")},
                   {"requests", requests},
                   {"bytes", bytes},
                   {"statuses", std::move(statuses)},
                   {"paths", std::move(paths)}};
  if (done && seconds > 0) {
    about["seconds"] = seconds;
    about["requests_per_s"] = static_cast<double>(requests) / seconds;
    about["bytes_per_s"] = static_cast<double>(bytes) / seconds;
    about["worker_cpu_s"] = cpu_s;
    about["latency_us"] = {{"p50", us(0.5)},
                           {"p90", us(0.9)},
                           {"p99", us(0.99)},
                           {"p999", us(0.999)},
                           {"max", us(1.0)}};
  }
  HttpResponse response;
  response.body = report_text(about);
  return response;
}

}  // namespace kelp
