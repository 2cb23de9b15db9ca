#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tools/run_kelpctl.h"
#include "tools/stand_in_kelp.h"

using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run;
using kelp::test::stand_in;
using kelp::test::StandIn;

TEST_CASE("ping tells how long its round trips took") {
  stand_in() = StandIn{};
  const Ran ran = run({"ping", "--count", "5", "--json"});
  REQUIRE(ran.code == 0);
  const auto about = nlohmann::json::parse(ran.out);
  CHECK(about["success"] == true);
  CHECK(about["round_trips"] == 5);
  CHECK(about["latency_us"]["p50"].is_number());
  CHECK(contains(run({"ping"}).out, "round trips  10\n"));
}

TEST_CASE("ping fails where there is no daemon, and where its workers do not answer") {
  stand_in() = StandIn{};
  stand_in().status = KELP_DEADLINE;
  CHECK(run({"ping"}).code == 9);
  stand_in() = StandIn{};
  stand_in().connect = KELP_DISCONNECTED;
  CHECK(run({"ping"}).code == 13);
}

TEST_CASE("bench counts reads, bytes and paths") {
  stand_in() = StandIn{};
  stand_in().content = std::string(5000, 'x');
  stand_in().path = KELP_PATH_LOCAL;
  const Ran ran = run({"bench", "3,01637037d6", "--count", "7", "--size", "4096", "--json"});
  REQUIRE(ran.code == 0);
  const auto about = nlohmann::json::parse(ran.out);
  CHECK(about["successful_ops"] == 7);
  CHECK(about["failed_ops"] == 0);
  CHECK(about["total_bytes"] == 7 * 4096);
  CHECK(about["paths"]["local"] == 7);
}

TEST_CASE("bench whose reads fail says so and exits with 20") {
  stand_in() = StandIn{};
  stand_in().status = KELP_NOT_FOUND;
  const Ran ran = run({"bench", "3,01637037d6", "--count", "3"});
  CHECK(ran.code == 20);
  CHECK(contains(ran.out, "failed         3\n"));
  CHECK(contains(ran.out, "not-found"));
}

TEST_CASE("bench takes file ids and counts that make sense") {
  stand_in() = StandIn{};
  CHECK(run({"bench"}).code == 2);
  CHECK(run({"bench", "nonsense"}).code == 2);
  CHECK(run({"bench", "3,01637037d6", "--count", "0"}).code == 2);
  CHECK(run({"bench", "3,01637037d6", "--size", "-1"}).code == 2);
}
