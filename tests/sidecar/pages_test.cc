#include "sidecar/pages.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace kelp::sidecar;
using namespace std::chrono_literals;

namespace {

struct Scene {
  Scene() {
    condition.attached = true;
    condition.facts = &facts;
    condition.counters = &counters;
  }
  Facts facts;
  Counters counters;
  Condition condition;
};

}  // namespace

TEST_CASE("health is what a mount asks for while reads can be answered") {
  Scene scene;
  CHECK(is_healthy(scene.condition));
  const auto said = nlohmann::json::parse(health_json(scene.condition));
  CHECK(said["status"] == "healthy");
  CHECK(said["rdma"]["enabled"] == true);
  CHECK(said["rdma"]["connected"] == false);
  scene.condition.attached = false;
  CHECK(!is_healthy(scene.condition));
  scene.condition.attached = true;
  scene.facts.serving = false;
  CHECK(!is_healthy(scene.condition));
  CHECK(nlohmann::json::parse(health_json(scene.condition))["status"] == "disabled");
}

TEST_CASE("where only RDMA is accepted and there is none, a mount is told so") {
  Scene scene;
  scene.condition.mount_accepts = MountAccepts::kRdma;
  CHECK(nlohmann::json::parse(health_json(scene.condition))["rdma"]["enabled"] == false);
  scene.facts.verbs_possible = true;
  CHECK(nlohmann::json::parse(health_json(scene.condition))["rdma"]["enabled"] == true);
}

TEST_CASE("stats are compact, for a script that greps") {
  Scene scene;
  scene.counters.reads[KELP_PATH_LOCAL].add(3);
  scene.counters.reads[KELP_PATH_HTTP].add(2);
  const std::string text = stats_json(scene.condition);
  CHECK(text.find("\"rdma_enabled\":true") != std::string::npos);
  const auto said = nlohmann::json::parse(text);
  CHECK(said["total_reads"] == 5);
  CHECK(said["http_fallbacks"] == 2);
  CHECK(said["rdma_reads"] == 0);
}

TEST_CASE("durations look as Go prints them") {
  CHECK(go_duration(0ns) == "0ns");
  CHECK(go_duration(999ns) == "999ns");
  CHECK(go_duration(12345ns) == "12.345µs");
  CHECK(go_duration(1500us) == "1.5ms");
  CHECK(go_duration(100ms) == "100ms");
  CHECK(go_duration(2100ms) == "2.1s");
}

TEST_CASE("an error is JSON whatever its sentence holds") {
  CHECK(nlohmann::json::parse(error_json("a \"b\"\n\xff"))["error"].is_string());
}
