// A 4 KiB read through libkelp and kelpd's worker, beside the least any reader of the same files
// can do in its own thread: look the needle up, fstat() the .idx, pread() the record, check its
// CRC-32C. Short slices take turns. With --worker-cpu the floor's run on the worker's CPU, which
// sleeps meanwhile: there Kelp does the same work, and two CPUs of a shared machine are not always
// as fast as each other.
//
//   kelp-floor-compare --run-dir DIR --volume-dir DIR --fids FILE [--worker-cpu N] [--pairs N]
//   [--json FILE]
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "bench/kelp_client.h"
#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"
#include "dataplane/volume/endian.h"
#include "dataplane/volume/needle.h"
#include "dataplane/volume/volume_open.h"
#include "shm_ring/ticks.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

constexpr std::size_t kLargestRecord = 1 << 16;
/// Reads at the start of a slice that do not count: they wake what slept during the other's.
constexpr int kUncounted = 8;
/// The worker polls for so long after its last read before it leaves its CPU.
constexpr std::uint32_t kWorkerSleepsAfterUs = 200;

struct Options {
  std::string run_dir, volume_dir, fids, json = "/dev/stdout";
  std::uint32_t slice_ms = 2, pairs = 2001;
  int worker_cpu = -1;
};

struct Object {
  std::string text;
  FileId fid;
};

[[noreturn]] void give_up(const std::string& why) {
  std::fprintf(stderr, "kelp-floor-compare: %s\n", why.c_str());
  std::exit(1);
}

std::unique_ptr<Volume> open(const std::string& directory, VolumeId id) {
  const std::string base = directory + "/" + std::to_string(static_cast<std::uint32_t>(id));
  VolumeOpen opening(id,
                     {.dat = base + ".dat",
                      .idx = base + ".idx",
                      .vif = base + ".vif",
                      .compaction_marker = base + ".cpc",
                      .copy_marker = base + ".note"},
                     std::make_shared<VolumeCounters>());
  while (true) {
    const VolumeOpen::Turn turn = opening.step();
    if (turn == VolumeOpen::Turn::kDone) return opening.take();
    if (turn == VolumeOpen::Turn::kFailed) give_up(base + ": " + opening.failure().reason);
  }
}

/// The floor. No ring, no other thread, no request to check, nothing left over for a client.
class Floor {
 public:
  Floor(const std::string& directory, const std::vector<Object>& objects)
      : memory_(kLargestRecord) {
    for (const Object& object : objects) {
      std::unique_ptr<Volume>& volume = volumes_[object.fid.volume];
      if (volume == nullptr) volume = open(directory, object.fid.volume);
    }
  }

  void read(const Object& object) {
    Volume& volume = *volumes_[object.fid.volume];
    if (volume.refresh() != Volume::Freshness::kCurrent)
      give_up("the volume has changed");  // fstat()
    const auto location = volume.find(object.fid.needle);
    if (!location) give_up("no such needle: " + object.text);
    const std::size_t length = record_bytes(location->body_bytes, volume.version());
    if (length > memory_.size()) give_up("a record is too large: " + object.text);
    const ssize_t got = ::pread(volume.dat_fd(), memory_.data(), length,
                                static_cast<off_t>(location->offset_bytes));
    if (got != static_cast<ssize_t>(length)) give_up("a short read of " + object.text);
    check(location->body_bytes);
  }

 private:
  /// header | data length | data | fields | checksum
  void check(std::int32_t body_bytes) {
    const std::byte* length = memory_.data() + kNeedleHeaderBytes;
    const std::uint32_t data_bytes = load_be32(length);
    const std::uint32_t stored = load_be32(length + body_bytes);
    const auto data = std::span<const std::byte>(memory_).subspan(
        kNeedleHeaderBytes + kDataLengthBytes, data_bytes);
    if (!checksum_matches(stored, crc32c(data))) give_up("a checksum does not fit");
  }

  std::map<VolumeId, std::unique_ptr<Volume>> volumes_;
  std::vector<std::byte> memory_;
};

std::vector<Object> load(const std::string& path) {
  std::ifstream file(path);
  std::vector<Object> objects;
  for (std::string line; std::getline(file, line);) {
    const auto fid = parse_file_id(line);
    if (!fid) give_up(path + ": not a file id: " + line);
    objects.push_back({line, *fid});
  }
  if (objects.empty()) give_up(path + " names no file ids");
  return objects;
}

/// This thread is on another CPU for as long as it lives. -1: it stays where it is.
class OnCpu {
 public:
  explicit OnCpu(int cpu) : moved_(cpu >= 0) {
    if (!moved_) return;
    ::sched_getaffinity(0, sizeof before_, &before_);
    cpu_set_t there;
    CPU_ZERO(&there);
    CPU_SET(static_cast<std::size_t>(cpu), &there);
    if (::sched_setaffinity(0, sizeof there, &there) != 0) give_up("there is no such CPU");
    const Ticks end = ticks_now() + TickRate::instance().from_us(kWorkerSleepsAfterUs);
    while (ticks_now() < end) {
    }
  }
  ~OnCpu() {
    if (moved_) ::sched_setaffinity(0, sizeof before_, &before_);
  }
  OnCpu(const OnCpu&) = delete;
  OnCpu& operator=(const OnCpu&) = delete;

 private:
  const bool moved_;
  cpu_set_t before_{};
};

/// Median nanoseconds of a read over one slice.
template <class Read>
double slice(const std::vector<Object>& objects, Ticks length, std::vector<double>& all,
             Read read) {
  std::vector<double> samples;
  const TickRate& rate = TickRate::instance();
  std::size_t at = 0;
  for (int i = 0; i < kUncounted; ++i) read(objects[at++ % objects.size()]);
  const Ticks start = ticks_now();
  for (Ticks before = start; before - start < length;) {
    read(objects[at++ % objects.size()]);
    const Ticks after = ticks_now();
    samples.push_back(static_cast<double>(rate.to_ns(after - before)));
    before = after;
  }
  const double middle = median(samples);
  all.push_back(middle);
  return middle;
}

nlohmann::json figure(const char* name, const std::vector<double>& values, double scale,
                      const char* unit, nlohmann::json must) {
  return {{"name", name},
          {"value", median(values) / scale},
          {"low", quantile(values, 0.25) / scale},
          {"high", quantile(values, 0.75) / scale},
          {"must", std::move(must)},
          {"better", "low"},
          {"unit", unit}};
}

void compare(const Options& options) {
  const std::vector<Object> objects = load(options.fids);
  Floor floor(options.volume_dir, objects);
  auto client = KelpClient::open(options.run_dir, kLargestRecord, 5'000'000);
  if (!client) give_up(client.error().what);
  const auto through_kelp = [&](const Object& object) {
    kelp_request request{};
    request.fid = {static_cast<std::uint32_t>(object.fid.volume),
                   static_cast<std::uint32_t>(object.fid.cookie),
                   static_cast<std::uint64_t>(object.fid.needle)};
    request.buffer = client->buffer().data();
    request.length = kLargestRecord;
    kelp_completion done{};
    std::uint32_t reaped = 0;
    kelp_status status = kelp_submit(client->channel(), &request, 1, nullptr);
    while (status == KELP_OK && reaped == 0) {
      status = kelp_reap(client->channel(), &done, 1, 0, &reaped);
    }
    if (status != KELP_OK || done.status != KELP_OK) give_up("Kelp does not read " + object.text);
  };
  const Ticks length = TickRate::instance().from_us(options.slice_ms * 1000);
  std::vector<double> floors, kelps, ratios;
  for (std::uint32_t pair = 0; pair < options.pairs; ++pair) {
    const auto least = [&] {
      const OnCpu worker(options.worker_cpu);
      return slice(objects, length, floors, [&](const Object& o) { floor.read(o); });
    }();
    ratios.push_back(slice(objects, length, kelps, through_kelp) / least);
  }
  const nlohmann::json document = {
      {"figures",
       {figure("in-process floor p50, 4 KiB", floors, 1000, "us", nullptr),
        figure("Kelp p50, 4 KiB", kelps, 1000, "us", nullptr),
        figure("Kelp p50 / in-process floor p50, 4 KiB", ratios, 1, "x", 2.0)}}};
  std::ofstream(options.json) << document.dump(2) << '\n';
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app("A read through Kelp beside the least a reader of the same files can do, in turns");
  app.add_option("--run-dir", options.run_dir, "kelpd's run directory")->required();
  app.add_option("--volume-dir", options.volume_dir, "the volumes' directory")->required();
  app.add_option("--fids", options.fids, "file ids of plain needles, one per line")->required();
  app.add_option("--worker-cpu", options.worker_cpu, "where kelpd's worker runs");
  app.add_option("--slice-ms", options.slice_ms, "length of a slice")->check(CLI::Range(1, 10000));
  app.add_option("--pairs", options.pairs, "pairs of slices")->check(CLI::Range(1, 100000));
  app.add_option("--json", options.json, "where the document goes");
  CLI11_PARSE(app, argc, argv);
  kelp::bench::compare(options);
  return 0;
}
