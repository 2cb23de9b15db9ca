#include "tools/bench/prepare.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tools/bench/expected.h"
#include "tools/control_client.h"
#include "tools/json_fields.h"
#include "tools/session.h"

namespace kelp::bench {
namespace {

constexpr std::uint64_t kPageBytes = 4096;
constexpr std::size_t kStatBytes = 64 << 10;

/// Objects that cannot be looked at keep a size of 0; the run will count why.
Outcome<void> learn_totals(const Options& options, std::vector<Object>& objects) {
  Outcome<Session> session = Session::open(options.common, kStatBytes);
  if (!session) return tl::unexpected(session.error());
  for (Object& object : objects) {
    const auto done = session->stat(object.name(), options.timeout_ms);
    if (!done && done.error().code == ExitCode::kNoDaemon) return tl::unexpected(done.error());
    if (!done) continue;
    kelp_stat stat{};
    std::memcpy(&stat, session->buffer(), sizeof stat);
    object.total = stat.total;
  }
  return {};
}

Outcome<std::uint64_t> buffer_for(const Options& options, const std::vector<Object>& objects) {
  if (options.range.length != 0) return options.range.length;
  if (options.size != 0) return options.size;
  std::uint64_t largest = 1;
  for (const Object& object : objects) largest = std::max(largest, object.total);
  if (largest <= UINT32_MAX) return largest;
  return fail(ExitCode::kUsage, "the largest object has " + std::to_string(largest) +
                                    " bytes: say with --size or --range what to read of it");
}

/// A popular object's neighbours in the file need not be popular.
void shuffle(std::vector<Object>& objects, std::uint64_t seed) {
  Random random(seed);
  for (std::size_t i = objects.size(); i > 1; --i) {
    std::swap(objects[i - 1], objects[random.below(i)]);
  }
}

}  // namespace

Outcome<std::unique_ptr<Work>> prepare_work(const Options& options) {
  auto objects =
      options.volume ? list_objects(options.common, *options.volume) : load_objects(options.fids);
  if (!objects) return tl::unexpected(objects.error());
  auto work = std::make_unique<Work>();
  work->objects = std::move(*objects);
  if (options.order.kind == OrderKind::kZipf) {
    shuffle(work->objects, options.order.seed);
    work->zipf = std::make_unique<ZipfTable>(work->objects.size(), options.order.theta);
  }
  if ((options.size == 0 && options.range.length == 0) || options.range.random_offset) {
    if (auto learnt = learn_totals(options, work->objects); !learnt) {
      return tl::unexpected(learnt.error());
    }
  }
  auto buffer_bytes = buffer_for(options, work->objects);
  if (!buffer_bytes) return tl::unexpected(buffer_bytes.error());
  work->buffer_bytes = *buffer_bytes;
  work->verify = !options.verify.empty();
  if (work->verify) {
    if (auto fetched = fetch_expected(options, work->objects); !fetched) {
      return tl::unexpected(fetched.error());
    }
  }
  return work;
}

Outcome<Connection> attach(const Options& options, const Work& work) {
  const std::uint64_t rounded = (work.buffer_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  kelp_options wanted = KELP_OPTIONS_INIT;
  wanted.channels = options.threads;
  wanted.data_bytes = rounded * options.depth * options.threads;
  wanted.ring_entries = std::bit_ceil(std::max(options.depth, 64u));
  wanted.run_dir = options.common.run_dir ? options.common.run_dir->c_str() : nullptr;
  wanted.name = "kelp-bench";
  kelp_connection* connection = nullptr;
  if (const kelp_status status = kelp_connect(&wanted, &connection); status != KELP_OK) {
    return tl::unexpected(Failure{exit_code_of(status),
                                  std::string("cannot connect: ") + kelp_error_detail(),
                                  kelp_status_name(status)});
  }
  return Connection(connection);
}

ProcessCpu daemon_cpu(const CommonOptions& common) {
  const auto answer = control_get(common, "/health");
  if (!answer) return {};
  const auto health = nlohmann::json::parse(answer->body, nullptr, false);
  const auto pid = field_count(health, "pid");
  if (!pid || *pid > INT32_MAX) return {};
  // In another PID namespace that number is somebody else, or nobody.
  std::ifstream comm("/proc/" + std::to_string(*pid) + "/comm");
  std::string name;
  if (!std::getline(comm, name) || name != "kelpd") return {};
  return ProcessCpu(static_cast<int>(*pid));
}

}  // namespace kelp::bench
