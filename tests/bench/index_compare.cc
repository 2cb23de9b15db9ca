// The index of a large volume: memory per needle, rows per second, time of a look-up, beside what
// they are held against.
//
//   kelp-index-compare volume --dir DIR [--needles N] [--overwrites F] [--deletes F] [--width 4|5]
//       writes a volume of N live needles: a sparse .dat with a header for each, and its .idx
//   kelp-index-compare load --idx FILE [--width 4|5] [--rounds R]
//       replays the file into a map and inserts the same rows into a reserved
//       absl::flat_hash_map<uint64_t, {offset, size}>, in turns; then looks needles up in slices
//       that alternate with two dependent random loads from arrays of the map's size
//   kelp-index-compare grow --idx FILE [--width 4|5]
//       replays it into a map that expected nothing, as a worker does: peak memory per needle, and
//       the longest pause of one row
//
// Each prints one JSON document. One process per figure of memory: what a map has freed the process
// may keep.
#include <absl/container/flat_hash_map.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "dataplane/volume/index_log.h"
#include "shm_ring/unique_fd.h"

namespace kelp::bench {
namespace {

/// What a replay of the loader hands over at once.
constexpr std::size_t kReplayRows = 65536;

struct Options {
  std::string dir;
  std::string idx;
  std::uint64_t needles = 10'000'000;
  double overwrites = 0.05;
  double deletes = 0.05;
  unsigned width = 5;
  int rounds = 5;
  OffsetWidth offset_width() const { return static_cast<OffsetWidth>(width); }
};

[[noreturn]] void fail(const std::string& what) {
  std::perror(what.c_str());
  std::exit(1);
}

/// CPU time of this thread, in seconds: on a shared machine the clock on the wall counts others'
/// work.
double cpu_s() {
  timespec used{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
  return static_cast<double>(used.tv_sec) + static_cast<double>(used.tv_nsec) / 1e9;
}

/// The most resident memory this process ever had, in bytes.
std::uint64_t peak_resident_bytes() {
  rusage used{};
  ::getrusage(RUSAGE_SELF, &used);
  return static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
}

/// Resident memory of this process, in bytes.
std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  std::uint64_t pages = 0;
  file >> pages >> pages;
  return pages * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

// ---- volume -------------------------------------------------------------------------------------

void store_be(std::byte* at, std::uint64_t value, std::size_t count) {
  for (std::size_t i = count; i-- > 0; value >>= 8) at[i] = static_cast<std::byte>(value);
}

class BufferedFile {
 public:
  explicit BufferedFile(const std::string& path)
      : fd_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (!fd_) fail(path);
  }
  std::byte* room(std::size_t bytes) {
    if (used_ + bytes > buffer_.size()) flush();
    used_ += bytes;
    return buffer_.data() + used_ - bytes;
  }
  void flush() {
    if (::write(fd_.get(), buffer_.data(), used_) != static_cast<ssize_t>(used_)) fail("write");
    used_ = 0;
  }
  int fd() const { return fd_.get(); }

 private:
  UniqueFd fd_;
  std::vector<std::byte> buffer_ = std::vector<std::byte>(1 << 20);
  std::size_t used_ = 0;
};

/// Rows as a server appends them: ids mostly ascending, now and then an older one again.
int write_volume(const Options& options) {
  constexpr std::uint64_t kHeaders = 64;  // what tells the width reads no more
  BufferedFile idx(options.dir + "/1.idx");
  BufferedFile dat(options.dir + "/1.dat");
  std::byte* const block = dat.room(8);
  std::fill_n(block, 8, std::byte{0});
  block[0] = std::byte{3};

  std::mt19937_64 random(1);
  const auto extra = [&](double share) {
    return std::uniform_real_distribution<double>(0, 1)(random) < share;
  };
  const std::size_t row_length = row_bytes(options.offset_width());
  std::uint64_t units = 1;
  std::uint64_t rows = 0;
  std::uint64_t deleted = 0;
  const auto append = [&](std::uint64_t id, bool alive) {
    constexpr std::int32_t kBody = 100;
    std::byte* const row = idx.room(row_length);
    store_be(row, id, 8);
    store_be(row + 8, units & UINT32_MAX, 4);
    if (row_length == kIndexRowBytesMax) store_be(row + 12, units >> 32, 1);
    store_be(row + row_length - 4, alive ? kBody : UINT32_MAX, 4);
    if (rows < kHeaders) {
      std::byte* const record = dat.room(record_bytes(alive ? kBody : 0, 3));
      std::fill_n(record, record_bytes(alive ? kBody : 0, 3), std::byte{0});
      store_be(record + 4, id, 8);
      store_be(record + 12, alive ? kBody : 0, 4);
    }
    units += record_bytes(alive ? kBody : 0, 3) / kNeedleAlignment;
    ++rows;
  };
  // SeaweedFS hands out ids in order, with gaps where they go to other volumes.
  std::uint64_t id = 1;
  std::uint64_t made = 0;
  while (made - deleted < options.needles) {
    id += 1 + random() % 13;
    append(id, true);
    ++made;
    if (extra(options.overwrites)) append(id, true);
    if (extra(options.deletes)) {
      append(id, false);
      ++deleted;
    }
  }
  idx.flush();
  dat.flush();
  if (::ftruncate(dat.fd(), static_cast<off_t>(units * kNeedleAlignment)) != 0) fail("truncate");
  std::ofstream(options.dir + "/1.vif") << R"({"version":3,"bytesOffset":)" << options.width << "}";
  std::printf("%s\n", nlohmann::json{{"needles", made - deleted}, {"rows", rows}}.dump().c_str());
  return 0;
}

// ---- load ---------------------------------------------------------------------------------------

class IndexFile {
 public:
  explicit IndexFile(const Options& options)
      : width_(options.offset_width()), row_length_(row_bytes(width_)) {
    const UniqueFd fd(::open(options.idx.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat facts {};
    if (!fd || ::fstat(fd.get(), &facts) != 0) fail(options.idx);
    bytes_.resize(static_cast<std::size_t>(facts.st_size) / row_length_ * row_length_);
    for (std::size_t done = 0; done < bytes_.size();) {
      const ssize_t got =
          ::pread(fd.get(), bytes_.data() + done, bytes_.size() - done, static_cast<off_t>(done));
      if (got <= 0) fail(options.idx);
      done += static_cast<std::size_t>(got);
    }
  }
  std::uint64_t rows() const { return bytes_.size() / row_length_; }
  OffsetWidth width() const { return width_; }
  IndexRow row(std::uint64_t index) const {
    return parse_index_row(bytes_.data() + index * row_length_, width_);
  }
  std::span<const std::byte> some(std::uint64_t first, std::uint64_t count) const {
    return std::span(bytes_).subspan(first * row_length_,
                                     std::min(count, rows() - first) * row_length_);
  }

 private:
  OffsetWidth width_;
  std::size_t row_length_;
  std::vector<std::byte> bytes_;
};

std::unique_ptr<IndexLog> replay(const IndexFile& file, bool expected) {
  auto log = std::make_unique<IndexLog>(std::uint8_t{3});
  log->set_width(file.width());
  if (expected) log->expect(file.rows());
  for (std::uint64_t row = 0; row < file.rows(); row += kReplayRows) {
    if (log->apply(file.some(row, kReplayRows), true).out_of_memory) fail("memory");
  }
  RowPartitions::Flushed flushed = RowPartitions::Flushed::kSome;
  while (flushed == RowPartitions::Flushed::kSome) flushed = log->settle();
  if (flushed != RowPartitions::Flushed::kAll) fail("memory");
  return log;
}

struct OffsetAndSize {
  std::uint64_t offset;
  std::int32_t size;
};
using AbslMap = absl::flat_hash_map<std::uint64_t, OffsetAndSize>;

std::unique_ptr<AbslMap> insert_into_absl(const IndexFile& file) {
  auto filled = std::make_unique<AbslMap>();
  AbslMap& map = *filled;
  map.reserve(file.rows());
  for (std::uint64_t i = 0; i < file.rows(); ++i) {
    const IndexRow row = file.row(i);
    const auto key = static_cast<std::uint64_t>(row.id);
    if (row.is_delete()) {
      map.erase(key);
    } else {
      map.insert_or_assign(key, OffsetAndSize{row.offset_bytes, row.size});
    }
  }
  return filled;
}

/// Two loads, each from a random place, the second place known only from the first load.
class DependentLoads {
 public:
  explicit DependentLoads(std::uint64_t bytes) {
    const std::uint64_t words = bytes / 2 / sizeof(std::uint64_t);
    std::mt19937_64 random(2);
    for (auto* array : {&first_, &second_}) {
      array->resize(words);
      for (std::uint64_t& word : *array) word = random();
    }
  }
  std::uint64_t load(std::uint64_t place) const { return second_[scaled(first_[scaled(place)])]; }

 private:
  std::size_t scaled(std::uint64_t value) const {
    __extension__ using Wide = unsigned __int128;
    return static_cast<std::size_t>(static_cast<Wide>(value) * first_.size() >> 64);
  }
  std::vector<std::uint64_t> first_;
  std::vector<std::uint64_t> second_;
};

/// Nanoseconds each, of one slice. Each step's place depends on the last one's result, so that none
/// begins before the one before has ended.
template <class Step>
double slice_ns(std::uint64_t steps, std::uint64_t& state, const Step& step) {
  const double start = cpu_s();
  for (std::uint64_t i = 0; i < steps; ++i) {
    state = state * 6364136223846793005 + 1442695040888963407 + (step(state) & 1);
  }
  return (cpu_s() - start) * 1e9 / static_cast<double>(steps);
}

std::vector<std::uint64_t> some_keys(const IndexFile& file, const NeedleMap& map) {
  std::vector<std::uint64_t> keys;
  std::mt19937_64 random(3);
  while (keys.size() < std::size_t{1} << 20) {
    const NeedleId id = file.row(random() % file.rows()).id;
    if (map.find(id)) keys.push_back(static_cast<std::uint64_t>(id));
  }
  return keys;
}

int load(const Options& options) {
  const IndexFile file(options);
  nlohmann::json result;
  result["rows"] = file.rows();
  const std::uint64_t before = resident_bytes();
  auto log = replay(file, true);
  const NeedleMap& map = log->map();
  result["needles"] = map.size();
  result["loading_bytes_per_needle"] =
      static_cast<double>(peak_resident_bytes() - before) / static_cast<double>(map.size());
  result["bytes_per_needle"] =
      static_cast<double>(resident_bytes() - before) / static_cast<double>(map.size());
  {
    // A server has swapped the files: the old index serves until the new one is there.
    const auto second = replay(file, true);
    result["reload_bytes_per_needle"] =
        static_cast<double>(resident_bytes() - before) / static_cast<double>(map.size());
  }

  // The keys come from an array that is read in order: its cost is part of both.
  const std::vector<std::uint64_t> keys = some_keys(file, map);
  const DependentLoads loads(map.memory_bytes());
  constexpr std::uint64_t kSteps = 20'000;
  // Added to a key it makes the look-up wait for the one before; the compiler must not know it.
  std::uint64_t nothing = 0;
  asm volatile("" : "+r"(nothing));
  std::uint64_t state = 1;
  std::size_t next = 0;
  std::vector<double> find_ns;
  std::vector<double> load_ns;
  std::vector<double> ratios;
  for (int slice = 0; slice < 200; ++slice) {
    load_ns.push_back(slice_ns(kSteps, state, [&](std::uint64_t place) {
      return loads.load(place ^ keys[next++ % keys.size()]);
    }));
    find_ns.push_back(slice_ns(kSteps, state, [&](std::uint64_t place) {
      const std::uint64_t key = keys[next++ % keys.size()] + (place & nothing);
      return map.find(NeedleId{key})->offset_bytes >> 3;
    }));
    ratios.push_back(find_ns.back() / load_ns.back());
  }
  result["find_ns"] = find_ns;
  result["two_loads_ns"] = load_ns;
  result["find_ratio"] = ratios;
  log.reset();

  for (int round = 0; round < options.rounds; ++round) {
    double start = cpu_s();
    auto theirs = insert_into_absl(file);
    const double absl_s = cpu_s() - start;
    const std::uint64_t needles = theirs->size();
    theirs.reset();  // neither pays for the end of the other, nor for its own
    start = cpu_s();
    log = replay(file, true);
    const double ours_s = cpu_s() - start;
    if (log->map().size() != needles) fail("the maps differ");
    log.reset();
    result["rows_per_s"].push_back(static_cast<double>(file.rows()) / ours_s);
    result["absl_rows_per_s"].push_back(static_cast<double>(file.rows()) / absl_s);
    result["load_ratio"].push_back(ours_s / absl_s);
  }
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

// ---- grow ---------------------------------------------------------------------------------------

int grow(const Options& options) {
  const IndexFile file(options);
  const std::uint64_t before = resident_bytes();
  IndexLog log(3);
  log.set_width(file.width());
  double worst = 0;
  double longest_us = 0;
  for (std::uint64_t row = 0; row < file.rows(); ++row) {
    const double start = cpu_s();
    log.apply(file.some(row, 1), true);
    longest_us = std::max(longest_us, (cpu_s() - start) * 1e6);
    // Below this the process itself is what is seen.
    if (log.map().size() < 500'000 || row % 5000 != 0) continue;
    worst = std::max(worst, static_cast<double>(resident_bytes() - before) /
                                static_cast<double>(log.map().size()));
  }
  const nlohmann::json result{{"needles", log.map().size()},
                              {"peak_bytes_per_needle", worst},
                              {"longest_row_us", longest_us}};
  std::printf("%s\n", result.dump().c_str());
  return 0;
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  using namespace kelp::bench;
  Options options;
  CLI::App app("The index of a large volume, measured", "kelp-index-compare");
  app.require_subcommand(1);
  CLI::App* const volume = app.add_subcommand("volume", "write a volume");
  CLI::App* const loading = app.add_subcommand("load", "replay and look up");
  CLI::App* const growing = app.add_subcommand("grow", "replay row by row");
  volume->add_option("--dir", options.dir)->required();
  volume->add_option("--needles", options.needles);
  volume->add_option("--overwrites", options.overwrites);
  volume->add_option("--deletes", options.deletes);
  loading->add_option("--rounds", options.rounds);
  for (CLI::App* each : {loading, growing}) each->add_option("--idx", options.idx)->required();
  for (CLI::App* each : {volume, loading, growing}) {
    each->add_option("--width", options.width)->check(CLI::IsMember({4, 5}));
  }
  CLI11_PARSE(app, argc, argv);
  if (volume->parsed()) return write_volume(options);
  return loading->parsed() ? load(options) : grow(options);
}
