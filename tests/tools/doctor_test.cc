#include <doctest/doctest.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "tools/doctor_checks.h"
#include "tools/run_kelpctl.h"
#include "tools/stats_watch.h"

using kelp::Finding;
using kelp::Level;
using kelp::test::contains;
using kelp::test::run_program;
using kelp::test::TempDir;

TEST_CASE("missing hugepages fail, warn or matter not, by what the daemon wants") {
  CHECK(kelp::judge_hugepages(8, 3, "require").level == Level::kOk);
  CHECK(kelp::judge_hugepages(8, 0, "prefer").level == Level::kWarn);
  CHECK(kelp::judge_hugepages(0, 0, "require").level == Level::kFail);
  CHECK(kelp::judge_hugepages(0, 0, "off").level == Level::kOk);
}

TEST_CASE("workers need a CPU fewer than there are, and all the more where they never sleep") {
  CHECK(kelp::judge_cpus(2, 1, true).level == Level::kOk);
  CHECK(kelp::judge_cpus(1, 1, false).level == Level::kWarn);
  CHECK(kelp::judge_cpus(1, 1, true).level == Level::kFail);
}

TEST_CASE("a directory is judged by whether it is there and by its file system") {
  CHECK(kelp::judge_directory("/d", 0, 0xef53).level == Level::kOk);
  CHECK(kelp::judge_directory("/d", 0, 0x6969).level == Level::kFail);  // NFS
  CHECK(kelp::judge_directory("/d", ENOENT, 0).level == Level::kFail);
  CHECK(kelp::judge_directory("/d", EACCES, 0).level == Level::kWarn);
}

TEST_CASE("locked memory matters where RDMA pins some, and then its limit is looked at") {
  constexpr std::uint64_t kMiB = 1 << 20;
  CHECK(kelp::judge_memlock(8 * kMiB, std::nullopt).level == Level::kOk);
  CHECK(kelp::judge_memlock(std::nullopt, kelp::RdmaMemory{64 * kMiB, 1024 * kMiB}).level ==
        Level::kOk);
  CHECK(kelp::judge_memlock(1088 * kMiB, kelp::RdmaMemory{64 * kMiB, 1024 * kMiB}).level ==
        Level::kOk);
  const Finding tight = kelp::judge_memlock(8 * kMiB, kelp::RdmaMemory{64 * kMiB, 1024 * kMiB});
  CHECK(tight.level == Level::kWarn);
  CHECK(contains(tight.detail, "limit 8.0 MiB; RDMA pins 64.0 MiB"));
  CHECK(contains(tight.remedy, "LimitMEMLOCK=infinity"));
}

TEST_CASE("RDMA is well where a port is usable or nobody wants one, and else it is said why not") {
  CHECK(kelp::judge_rdma({true, true, {"rxe0 port 1"}, {"rxe1 port 1: down"}, ""}).detail ==
        "usable: rxe0 port 1");
  CHECK(kelp::judge_rdma({false, false, {}, {"rxe0 port 1: down"}, ""}).level == Level::kOk);
  const Finding none = kelp::judge_rdma({true, false, {}, {}, ""});
  CHECK(none.level == Level::kOk);
  CHECK(contains(none.detail, "no device"));
  CHECK(kelp::judge_rdma({true, true, {}, {}, ""}).level == Level::kFail);
  const Finding down = kelp::judge_rdma({true, false, {}, {"rxe0 port 1: the port is down"}, ""});
  CHECK(down.level == Level::kWarn);
  CHECK(contains(down.detail, "the port is down"));
  CHECK(kelp::judge_rdma({true, false, {}, {}, "no memory"}).level == Level::kWarn);
}

TEST_CASE("whatever is not well comes with a remedy") {
  for (const Finding& finding :
       {kelp::judge_hugepages(0, 0, "prefer"), kelp::judge_hugepages(0, 0, "require"),
        kelp::judge_cpus(1, 1, false), kelp::judge_cpus(1, 1, true),
        kelp::judge_directory("/d", ENOENT, 0), kelp::judge_directory("/d", EACCES, 0),
        kelp::judge_directory("/d", 0, 1), kelp::judge_version("1", "2"),
        kelp::judge_memlock(1, kelp::RdmaMemory{1, 1}), kelp::judge_rdma({true, true, {}, {}, ""}),
        kelp::judge_rdma({true, false, {}, {"rxe0: gone"}, ""}),
        kelp::judge_rdma({true, false, {}, {}, "no memory"})}) {
    CAPTURE(finding.detail);
    CHECK(finding.level != Level::kOk);
    CHECK_FALSE(finding.remedy.empty());
  }
  CHECK(kelp::worst_of({kelp::judge_version("1", "1"), kelp::judge_version("1", "2")}) ==
        Level::kWarn);
}

TEST_CASE("without a daemon the doctor still looks around, and fails") {
  const TempDir dir;
  const auto ran = run_program({"doctor", "--run-dir", dir.path(), "--volume-dir", dir.path()});
  CHECK(ran.code == 1);
  CHECK(ran.err.empty());
  CHECK(contains(ran.out, "hugepages"));
  CHECK(contains(ran.out, "directory " + dir.path()));
  CHECK(contains(ran.out, "journalctl"));
  const auto json = run_program({"doctor", "--json", "--run-dir", dir.path()});
  CHECK(json.code == 1);
  CHECK(nlohmann::json::parse(json.out)["worst"] == "fail");
}

TEST_CASE("rates are what grew between two answers, per second") {
  const auto before = nlohmann::json::parse(
      R"({"uptime_s":10,"workers":[{"id":0,"cpu_time_s":1,"counters":{"reads":100,"bytes":1000,
          "completions_ok":90,"completions_not_found":10}}]})");
  const auto now = nlohmann::json::parse(
      R"({"uptime_s":12,"workers":[{"id":0,"cpu_time_s":2,"counters":{"reads":300,"bytes":5000,
          "completions_ok":280,"completions_not_found":20},
          "latency_us":{"read":{"p50":1.5,"p99":9}}},{"id":1,"counters":{"reads":5}}]})");
  const auto rates = kelp::worker_rates(before, now);
  REQUIRE(rates.size() == 1);
  CHECK(rates[0].reads == doctest::Approx(100));
  CHECK(rates[0].bytes == doctest::Approx(2000));
  CHECK(rates[0].not_ok == doctest::Approx(5));
  CHECK(rates[0].cpu == doctest::Approx(0.5));
  CHECK(rates[0].p99_us == "9");
}

TEST_CASE("a daemon that was started anew, and answers of odd shapes, give no rates below 0") {
  const auto old =
      nlohmann::json::parse(R"({"uptime_s":10,"workers":[{"id":0,"counters":{"reads":100}}]})");
  const auto anew =
      nlohmann::json::parse(R"({"uptime_s":12,"workers":[{"id":0,"counters":{"reads":7}}]})");
  CHECK(kelp::worker_rates(old, anew)[0].reads == 0);
  CHECK(kelp::worker_rates(anew, old).empty());
  for (const char* odd : {"{}", "[]", R"({"uptime_s":"x","workers":7})",
                          R"({"uptime_s":99,"workers":[7,{"id":0,"counters":[]}]})"}) {
    for (const auto& worker : kelp::worker_rates(old, nlohmann::json::parse(odd))) {
      CHECK(worker.reads == 0);
    }
  }
}
