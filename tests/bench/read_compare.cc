// kelp-read-compare: the same objects through the ring and over SeaweedFS's HTTP, byte by byte and
// then microsecond by microsecond. Both are measured in short slices that take turns, so that
// whatever else the machine does meanwhile troubles both; a ratio is the median of the ratios of
// neighbouring slices. One thread, one request at a time.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "bench/kelp_client.h"
#include "tools/bench/http_connection.h"
#include "tools/bench/samples.h"

namespace kelp::bench {
namespace {

using Clock = std::chrono::steady_clock;

struct Options {
  std::string run_dir;
  std::string server;
  std::string fids;
  std::string json;
  int slice_ms = 200;
  int pairs = 9;
  bool http_only = false;
};

struct Object {
  std::string fid;
  std::string path;
  std::size_t bytes = 0;
};

/// Objects that are measured together: one line of the table.
struct Group {
  std::string label;
  std::vector<Object> objects{};
  std::vector<double> kelp_us{}, http_us{};  // every single read
  std::vector<double> ratios{};              // HTTP p50 / Kelp p50, one per pair of slices
};

/// Lines "label<TAB>fid"; groups in the order in which their labels first appear.
Result<std::vector<Group>> load_groups(const std::string& path) {
  std::ifstream file(path);
  if (!file) return system_error("cannot open " + path);
  std::vector<Group> groups;
  for (std::string line; std::getline(file, line);) {
    const std::size_t tab = line.find('\t');
    if (tab == std::string::npos) return plain_error(path + ": no tab in: " + line);
    const std::string label = line.substr(0, tab), fid = line.substr(tab + 1);
    auto group = std::find_if(groups.begin(), groups.end(),
                              [&](const Group& one) { return one.label == label; });
    if (group == groups.end()) group = groups.insert(group, {.label = label});
    group->objects.push_back({.fid = fid, .path = "/" + fid});
  }
  if (groups.empty()) return plain_error(path + " names no objects");
  return groups;
}

class Comparison {
 public:
  Comparison(const Options& options, HttpConnection http)
      : options_(options), http_(std::move(http)) {}

  /// Learns the sizes, over HTTP; everything is in the page cache afterwards.
  Result<void> learn_sizes(std::vector<Group>& groups) {
    for (Group& group : groups) {
      for (Object& object : group.objects) {
        const auto answer = http_get(object);
        if (!answer) return tl::unexpected(answer.error());
        object.bytes = answer->size();
        largest_ = std::max(largest_, object.bytes);
      }
    }
    return {};
  }

  Result<void> attach() {
    auto kelp = KelpClient::open(options_.run_dir, largest_ + 1, 10'000'000);
    if (!kelp) return tl::unexpected(kelp.error());
    kelp_.emplace(std::move(*kelp));
    return {};
  }

  /// Every object whole, and one range of each: Kelp's bytes are HTTP's bytes.
  Result<void> verify(const std::vector<Group>& groups) {
    std::minstd_rand random(1);
    for (const Group& group : groups) {
      for (const Object& object : group.objects) {
        const auto expected = http_get(object);
        if (!expected) return tl::unexpected(expected.error());
        const std::size_t offset = random() % (object.bytes + 1);
        const std::size_t length = 1 + random() % (object.bytes - offset + 1);
        if (auto same = compare(object, *expected, 0, largest_ + 1); !same) return same;
        if (auto same = compare(object, *expected, offset, length); !same) return same;
      }
    }
    return {};
  }

  Result<void> measure(Group& group) {
    std::shuffle(group.objects.begin(), group.objects.end(), std::minstd_rand(7));
    for (int pair = 0; pair < options_.pairs; ++pair) {
      const auto http = slice(group, [this](const Object& object) { return http_get(object); });
      if (!http) return tl::unexpected(http.error());
      group.http_us.insert(group.http_us.end(), http->begin(), http->end());
      if (!kelp_) continue;
      const auto kelp = slice(group, [this](const Object& object) { return kelp_read(object); });
      if (!kelp) return tl::unexpected(kelp.error());
      group.kelp_us.insert(group.kelp_us.end(), kelp->begin(), kelp->end());
      group.ratios.push_back(median(*http) / median(*kelp));
    }
    return {};
  }

  std::string paths() const {
    std::string names;
    for (const int path : paths_) {
      names += names.empty() ? "" : ", ";
      names += kelp_path_name(static_cast<kelp_path>(path));
    }
    return names;
  }

 private:
  Result<std::span<const char>> http_get(const Object& object) {
    const auto answer = http_.get(object.path);
    if (!answer) return tl::unexpected(answer.error());
    if (answer->status != 200) {
      return plain_error("weed answered GET " + object.fid + " with " +
                         std::to_string(answer->status));
    }
    return answer->body;
  }

  Result<std::span<const char>> kelp_read(const Object& object) {
    auto bytes = kelp_read_range(object, 0, largest_ + 1);
    if (bytes && bytes->size() != object.bytes)
      return plain_error("Kelp: wrong size of " + object.fid);
    return bytes;
  }

  Result<std::span<const char>> kelp_read_range(const Object& object, std::size_t offset,
                                                std::size_t length) {
    kelp_completion done;
    const kelp_status status =
        kelp_->read(object.fid.c_str(), offset, static_cast<std::uint32_t>(length), done);
    if (status != KELP_OK) {
      return plain_error("Kelp answered " + object.fid + " with " + kelp_status_name(status));
    }
    paths_.insert(done.path);
    return kelp_->buffer().first(done.bytes);
  }

  Result<void> compare(const Object& object, std::span<const char> whole, std::size_t offset,
                       std::size_t length) {
    const auto bytes = kelp_read_range(object, offset, length);
    if (!bytes) return tl::unexpected(bytes.error());
    const auto expected = whole.subspan(offset, std::min(length, whole.size() - offset));
    if (std::ranges::equal(*bytes, expected)) return {};
    return plain_error("Kelp's bytes of " + object.fid + " from offset " + std::to_string(offset) +
                       " are not weed's");
  }

  /// Reads the group's objects in turn for one slice; microseconds of each read. The first few are
  /// not counted: they wake what slept during the other side's slice.
  template <class Read>
  Result<std::vector<double>> slice(const Group& group, Read read) {
    constexpr std::size_t kUncounted = 8;
    std::vector<double> microseconds;
    Clock::time_point end = Clock::now() + std::chrono::milliseconds(options_.slice_ms);
    for (std::size_t i = 0;; ++i) {
      const Object& object = group.objects[next_++ % group.objects.size()];
      const Clock::time_point before = Clock::now();
      const auto bytes = read(object);
      const Clock::time_point after = Clock::now();
      if (!bytes) return tl::unexpected(bytes.error());
      if (i >= kUncounted) {
        microseconds.push_back(std::chrono::duration<double, std::micro>(after - before).count());
        if (after >= end) return microseconds;
      }
    }
  }

  const Options& options_;
  HttpConnection http_;
  std::optional<KelpClient> kelp_;
  std::size_t largest_ = 0;
  std::size_t next_ = 0;
  std::set<int> paths_;
};

void print_table(const std::vector<Group>& groups, const Options& options) {
  std::printf(
      "                          Kelp (us)           HTTP keep-alive (us)     HTTP p50 / Kelp "
      "p50\n");
  std::printf("%-12s %7s %10s %10s  %10s %10s     %7s  (quartiles)\n", "size", "objects", "p50",
              "p99", "p50", "p99", "median");
  for (const Group& group : groups) {
    std::printf("%-12s %7zu ", group.label.c_str(), group.objects.size());
    if (options.http_only) {
      std::printf("%10s %10s", "-", "-");
    } else {
      std::printf("%10.1f %10.1f", median(group.kelp_us), quantile(group.kelp_us, 0.99));
    }
    std::printf("  %10.1f %10.1f", median(group.http_us), quantile(group.http_us, 0.99));
    if (!options.http_only) {
      std::printf("     %7.1f  (%.1f - %.1f)", median(group.ratios), quantile(group.ratios, 0.25),
                  quantile(group.ratios, 0.75));
    }
    std::printf("\n");
  }
}

nlohmann::json figure(std::string name, const std::vector<double>& values, const char* better,
                      const char* unit) {
  return {{"name", std::move(name)},
          {"value", median(values)},
          {"low", quantile(values, 0.25)},
          {"high", quantile(values, 0.75)},
          {"must", nullptr},
          {"better", better},
          {"unit", unit}};
}

Result<void> write_json(const std::string& path, const std::vector<Group>& groups, bool http_only) {
  nlohmann::json figures = nlohmann::json::array();
  for (const Group& group : groups) {
    figures.push_back(figure("weed HTTP latency, " + group.label, group.http_us, "low", "us"));
    if (http_only) continue;
    figures.push_back(figure("Kelp latency, " + group.label, group.kelp_us, "low", "us"));
    figures.push_back(
        figure("weed HTTP p50 / Kelp p50, " + group.label, group.ratios, "high", "x"));
  }
  std::ofstream file(path);
  file << nlohmann::json{{"figures", figures}}.dump(2) << '\n';
  if (!file.flush()) return system_error("cannot write " + path);
  return {};
}

Result<void> run(const Options& options) {
  auto groups = load_groups(options.fids);
  if (!groups) return tl::unexpected(groups.error());
  auto http = HttpConnection::open(options.server);
  if (!http) return tl::unexpected(http.error());
  Comparison comparison(options, std::move(*http));
  if (auto learnt = comparison.learn_sizes(*groups); !learnt) return learnt;
  if (!options.http_only) {
    if (auto attached = comparison.attach(); !attached) return attached;
    if (auto same = comparison.verify(*groups); !same) return same;
    std::size_t objects = 0, bytes = 0;
    for (const Group& group : *groups) {
      objects += group.objects.size();
      for (const Object& object : group.objects) bytes += object.bytes;
    }
    std::printf("%zu objects, %zu bytes: Kelp (path: %s) and weed's HTTP agree on every byte\n\n",
                objects, bytes, comparison.paths().c_str());
    std::fflush(stdout);
  }
  for (Group& group : *groups) {
    if (auto measured = comparison.measure(group); !measured) return measured;
  }
  print_table(*groups, options);
  return options.json.empty() ? Result<void>{}
                              : write_json(options.json, *groups, options.http_only);
}

}  // namespace
}  // namespace kelp::bench

int main(int argc, char** argv) {
  kelp::bench::Options options;
  CLI::App app{
      "Reads objects through Kelp's ring and over SeaweedFS's HTTP, compares and times them"};
  app.add_option("--server", options.server, "weed volume server, ADDRESS:PORT")->required();
  app.add_option("--fids", options.fids, "file with a line 'label<TAB>fid' per object")->required();
  app.add_option("--run-dir", options.run_dir, "where kelpd's sockets are");
  app.add_option("--slice-ms", options.slice_ms, "length of a slice")->check(CLI::Range(1, 60000));
  app.add_option("--pairs", options.pairs, "slices per side and label")
      ->check(CLI::Range(1, 10000));
  app.add_option("--json", options.json, "write the figures there too");
  app.add_flag("--http-only", options.http_only, "time the HTTP client alone");
  CLI11_PARSE(app, argc, argv);
  const auto done = kelp::bench::run(options);
  if (!done) std::cerr << "kelp-read-compare: " << done.error().what << '\n';
  return done ? 0 : 1;
}
