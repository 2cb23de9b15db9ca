#include "control/load_control.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/small_volume.h"
#include "support/temp_dir.h"

using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::LoadControl;
using kelp::Worker;
using kelp::WorkerCommand;
using kelp::WorkerOptions;
using kelp::test::pattern;
using kelp::test::SmallVolume;
using kelp::test::TempDir;
using nlohmann::json;
using Query = std::map<std::string, std::string>;

namespace {

constexpr std::uint32_t kNeedles = 3;
constexpr std::uint32_t kNeedleBytes = 500;
constexpr const char* kFid = "2,0100000005";

/// Workers that do nothing until they are stepped, and volumes 2 and 3 with needles 1 to 3 each,
/// all under cookie 5. Of two workers the first owns volume 2, the second volume 3.
struct LoadScene {
  explicit LoadScene(std::uint32_t count = 1, bool with_volumes = true) {
    for (std::uint32_t volume = 2; with_volumes && volume <= 3; ++volume) {
      SmallVolume writer(dir.path(), volume);
      for (std::uint32_t id = 1; id <= kNeedles; ++id) {
        writer.put(id, 5, pattern(kNeedleBytes, id));
      }
    }
    for (std::uint32_t i = 0; i < count; ++i) {
      WorkerOptions options;
      options.index = i;
      options.workers = count;
      options.ops = 64;
      options.loader.directories = {{dir.path().string(), ""}};
      options.loader.worker = i;
      options.loader.workers = count;
      workers.push_back(std::make_unique<Worker>(options));
    }
    Worker::introduce(workers);
  }

  HttpResponse start(Query query) { return load.start({"POST", "/loadgen", query}, workers); }
  HttpResponse start() { return start({{"fids", kFid}}); }
  json report() const { return json::parse(load.report().body); }

  /// Of the volumes that worker has.
  std::uint64_t reads_of(std::size_t worker) const {
    std::uint64_t reads = 0;
    for (const auto& volume : workers[worker]->loader().catalog().reports()) {
      if (volume.counters) reads += volume.counters->reads;
    }
    return reads;
  }

  template <class Condition>
  bool step_until(Condition&& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      for (int i = 0; i < 64; ++i) {
        for (const auto& worker : workers) worker->poll_once();
      }
      std::this_thread::yield();  // to the loaders
    }
    return true;
  }
  bool step_until_served() {
    return step_until([&] {
      return std::ranges::all_of(workers,
                                 [](const auto& each) { return each->loader().settled(); });
    });
  }
  bool step_until_done() {
    return step_until([&] { return report()["state"] == "done"; });
  }

  TempDir dir;
  LoadControl load;
  std::vector<std::unique_ptr<Worker>> workers;
};

std::string sentence_of(const HttpResponse& response) {
  return json::parse(response.body)["error"];
}

/// Fills the worker's queue of messages, which it takes at its next step.
void fill_queue(Worker& worker) {
  while (worker.command({WorkerCommand::Kind::kDrain})) continue;
}

std::string fids_of_both_volumes() {
  std::string fids;
  for (const char* volume : {"2", "3"}) {
    for (std::uint32_t id = 1; id <= kNeedles; ++id) {
      fids += std::string(volume) + ",0" + std::to_string(id) + "00000005;";
    }
  }
  return fids;
}

}  // namespace

TEST_CASE("a load that makes no sense is refused with a sentence that says why") {
  std::string many;
  for (int i = 0; i < 513; ++i) many += std::string(kFid) + ";";
  const std::vector<std::pair<Query, std::string>> senseless = {
      {{}, "fids names 1 to 512 needles: fids=FID;FID;..."},
      {{{"fids", ""}}, "fids names 1 to 512 needles: fids=FID;FID;..."},
      {{{"fids", many}}, "fids names 1 to 512 needles: fids=FID;FID;..."},
      {{{"fids", "nonsense"}}, "\"nonsense\" is no file id like 3,01637037d6"},
      {{{"fids", std::string(kFid) + ";;"}}, "\"\" is no file id like 3,01637037d6"},
      {{{"fids", kFid}, {"depth", "0"}}, "depth is a whole number from 1 to 1024"},
      {{{"fids", kFid}, {"depth", "1025"}}, "depth is a whole number from 1 to 1024"},
      {{{"fids", kFid}, {"depth", ""}}, "depth is a whole number from 1 to 1024"},
      {{{"fids", kFid}, {"size", "-1"}}, "size is a whole number from 1 to 67108864"},
      {{{"fids", kFid}, {"size", "67108865"}}, "size is a whole number from 1 to 67108864"},
      {{{"fids", kFid}, {"ms", "0"}}, "ms is a whole number from 1 to 600000"},
      {{{"fids", kFid}, {"ms", "1.5"}}, "ms is a whole number from 1 to 600000"},
      {{{"fids", kFid}, {"timeout_ms", "600001"}}, "timeout_ms is a whole number from 1 to 600000"},
      {{{"fids", kFid}, {"count", "0"}}, "count is a whole number from 1 to 18446744073709551615"},
      {{{"fids", kFid}, {"count", "18446744073709551616"}},
       "count is a whole number from 1 to 18446744073709551615"},
      {{{"fids", kFid}, {"rate", "7"}}, "\"rate\" is nothing loadgen takes"},
      {{{"fids", kFid}, {"depth", "1024"}, {"size", "1048577"}},
       "depth times size is more than 1 GiB"},
  };
  LoadScene scene(1, false);
  for (const auto& [query, sentence] : senseless) {
    const HttpResponse response = scene.start(query);
    CHECK(response.status == 400);
    CHECK(sentence_of(response) == sentence);
    CHECK(scene.report()["state"] == "idle");
  }
}

TEST_CASE("before the first load there is nothing to report, and nothing to stop") {
  LoadScene scene(1, false);
  CHECK(json::parse(scene.load.stop().body) ==
        json::parse(R"({"state":"idle","requests":0,"bytes":0,"statuses":{},"paths":{}})"));
}

TEST_CASE("a load ends with as many requests as asked for, read from the files of this host") {
  LoadScene scene;
  REQUIRE(scene.step_until_served());
  const HttpResponse started =
      scene.start({{"fids", fids_of_both_volumes()}, {"depth", "4"}, {"count", "1000"}});
  CHECK(started.status == 200);
  CHECK(json::parse(started.body)["state"] == "running");
  REQUIRE(scene.step_until_done());
  const json report = scene.report();
  CHECK(report["requests"] == 1000);
  CHECK(report["bytes"] == 1000 * kNeedleBytes);
  CHECK(report["statuses"] == json{{"ok", 1000}});
  CHECK(report["paths"] == json{{"local", 1000}});
  const double seconds = report["seconds"];
  CHECK(seconds > 0);
  CHECK(report["requests_per_s"].get<double>() == doctest::Approx(1000 / seconds));
  CHECK(report["bytes_per_s"].get<double>() == doctest::Approx(1000 * kNeedleBytes / seconds));
  CHECK(report["worker_cpu_s"].get<double>() > 0);
  double below = 0;
  for (const char* quantile : {"p50", "p90", "p99", "p999", "max"}) {
    const double us = report["latency_us"][quantile];
    CHECK(us > 0);
    CHECK(us >= below);
    below = us;
  }
}

TEST_CASE("needles longer than a buffer are cut, and what is not there is counted as that") {
  LoadScene scene;
  REQUIRE(scene.step_until_served());
  scene.start({{"fids", "2,0100000005;2,0900000005"}, {"size", "100"}, {"count", "10"}});
  REQUIRE(scene.step_until_done());
  const json report = scene.report();
  CHECK(report["statuses"] == json{{"ok", 5}, {"not-found", 5}});
  CHECK(report["paths"] == json{{"local", 5}});
  CHECK(report["bytes"] == 5 * 100);
}

TEST_CASE("workers share the requests, and each reads the volumes it owns") {
  LoadScene scene(2);
  REQUIRE(scene.step_until_served());
  scene.start({{"fids", fids_of_both_volumes()}, {"depth", "2"}, {"count", "101"}});
  REQUIRE(scene.step_until_done());
  const json report = scene.report();
  CHECK(report["requests"] == 101);
  CHECK(report["statuses"] == json{{"ok", 101}});
  CHECK(scene.reads_of(0) == 51);
  CHECK(scene.reads_of(1) == 50);
  // One that owns none of them is left alone.
  scene.start({{"fids", kFid}, {"count", "7"}});
  REQUIRE(scene.step_until_done());
  CHECK(scene.report()["requests"] == 7);
  CHECK(scene.reads_of(1) == 50);
}

TEST_CASE("a load is over when its time is, or when it is stopped") {
  LoadScene scene;
  REQUIRE(scene.step_until_served());
  scene.start({{"fids", kFid}, {"ms", "20"}});
  REQUIRE(scene.step_until_done());
  CHECK(scene.report()["seconds"].get<double>() >= 0.02);
  REQUIRE(scene.start({{"fids", kFid}, {"ms", "600000"}}).status == 200);
  REQUIRE(scene.step_until([&] { return scene.report()["requests"] > 10; }));
  const json stopping = json::parse(scene.load.stop().body);
  CHECK(stopping["state"] == "running");  // until the worker has seen it
  CHECK_FALSE(stopping.contains("seconds"));
  REQUIRE(scene.step_until_done());
  const json report = scene.report();
  CHECK(report["requests"] == report["statuses"]["ok"]);
  CHECK(report["seconds"].get<double>() < 600);
}

TEST_CASE("while one load is under way another is refused, and the first goes on") {
  LoadScene scene(1, false);
  REQUIRE(scene.start().status == 200);
  const HttpResponse second = scene.start();
  CHECK(second.status == 409);
  CHECK(sentence_of(second) == "a load is under way; POST /loadgen/stop ends it");
  CHECK(scene.report()["state"] == "running");
  scene.load.stop();
  REQUIRE(scene.step_until_done());
  CHECK(scene.start().status == 200);
  scene.load.stop();
  REQUIRE(scene.step_until_done());
}

TEST_CASE("a worker that takes no message refuses the load of all, and the next one may begin") {
  for (const std::size_t full : {0u, 1u}) {
    CAPTURE(full);
    LoadScene scene(2, false);
    fill_queue(*scene.workers[full]);
    const HttpResponse refused = scene.start({{"fids", fids_of_both_volumes()}});
    CHECK(refused.status == 503);
    CHECK(sentence_of(refused) == "a worker has too many messages waiting");
    CHECK(scene.step_until([&] { return scene.start().status == 200; }));
  }
}
