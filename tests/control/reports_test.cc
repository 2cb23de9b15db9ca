#include "control/reports.h"

#include <doctest/doctest.h>

#include <set>
#include <sstream>

#include "control/reports_scene.h"

using kelp::MasterReport;
using kelp::test::ReportsScene;
using kelp::test::server_of;
using kelp::test::some_time;
using nlohmann::json;

namespace {

MasterReport failing(const std::string& url, const std::string& failure) {
  return {url, 7, 3, std::nullopt, some_time(), failure};
}

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

/// Each family has its help and type, once, and no sample comes before them.
void check_exposition(const std::string& text) {
  std::set<std::string> seen;
  std::string family;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    CAPTURE(line);
    if (line.starts_with("# HELP ")) {
      family = line.substr(7, line.find(' ', 7) - 7);
      CHECK(seen.insert(family).second);
      CHECK(line.size() > 8 + family.size());
    } else if (!line.starts_with("# TYPE ")) {
      CHECK(line.starts_with(family));
    }
  }
}

}  // namespace

TEST_CASE("without a gateway the reports say that there is none") {
  const ReportsScene scene;
  const json health = json::parse(kelp::health_json(scene.sources));
  CHECK(health["gateway"].is_null());
  CHECK(health["status"] == "healthy");
  CHECK(json::parse(kelp::stats_json(scene.sources))["gateway"].is_null());
  const json volumes = json::parse(kelp::volumes_json(scene.sources));
  CHECK(volumes["remote"] == json::array());
  CHECK(kelp::metrics_text(scene.sources).find("kelp_gateway") == std::string::npos);
}

TEST_CASE(
    "without io_uring health is degraded where other kelpds are configured, else it is a note") {
  ReportsScene scene;
  scene.sources.tcp_obstacle = "no io_uring";
  const json discovers = json::parse(kelp::health_json(scene.sources));
  CHECK(discovers["status"] == "healthy");
  CHECK(discovers["notes"].dump().find("no io_uring") != std::string::npos);
  for (auto* const wanted : {&scene.config.peer.listen, &scene.config.peer.kelpds}) {
    *wanted = {"a:18516"};
    const json health = json::parse(kelp::health_json(scene.sources));
    CHECK(health["status"] == "degraded");
    CHECK(health["reasons"] == json::array({"no io_uring"}));
    wanted->clear();
  }
}

TEST_CASE("a pure gateway is healthy without a volume") {
  ReportsScene scene;
  scene.config.gateway.masters = {"a:9333"};
  scene.gateway().masters = {{"a:9333", 0, 0, std::nullopt, std::nullopt, ""}};
  const json health = json::parse(kelp::health_json(scene.sources));
  CHECK(health["status"] == "healthy");
  CHECK(health["reasons"].empty());
  CHECK(health["gateway"]["servers"] == json::array());
}

TEST_CASE("health tells of each master and each volume server") {
  ReportsScene scene;
  scene.gateway().masters = {{"a:9333", 12, 1, some_time(), std::nullopt, ""},
                             failing("b:9333", "Connection refused")};
  auto server = server_of("10.0.0.1:8080", "closed");
  server.reads = 5;
  server.failures = 1;
  server.bytes = 4096;
  server.p50_ns = 1500;
  server.p99_ns = 2'000'000;
  scene.gateway().servers = {server};
  const json health = json::parse(kelp::health_json(scene.sources));
  CHECK(health["gateway"]["masters"] ==
        json::parse(R"([{"url":"a:9333","asked":12,"failures":1,"last_answer_s":1704067200.5,
                         "failing_since_s":null,"failure":""},
                        {"url":"b:9333","asked":7,"failures":3,"last_answer_s":null,
                         "failing_since_s":1704067200.5,"failure":"Connection refused"}])"));
  CHECK(health["gateway"]["servers"] ==
        json::parse(R"([{"server":"10.0.0.1:8080","path":"http","breaker":"closed","reason":"",
                         "failing_since_s":null,"reads":5,"failures":1,"bytes":4096,
                         "p50_us":1.5,"p99_us":2000.0}])"));
  CHECK(health["status"] == "healthy");  // one master of two is enough
}

TEST_CASE("the daemon is degraded when no master answers, and says what each one does") {
  ReportsScene scene;
  scene.gateway().masters = {failing("a:9333", "Connection refused"), failing("b:9333", "")};
  const json health = json::parse(kelp::health_json(scene.sources));
  CHECK(health["status"] == "degraded");
  REQUIRE(health["reasons"].size() == 1);
  CHECK(health["reasons"][0] ==
        "no master answers, volumes whose place is not known cannot be read; "
        "a:9333: Connection refused; b:9333");
}

TEST_CASE("the daemon is degraded by each volume server whose breaker is not closed") {
  ReportsScene scene;
  scene.gateway().servers = {server_of("a:1", "closed", "timed out once"),
                             server_of("b:1", "open", "Connection refused"),
                             server_of("c:1", "half-open")};
  const json health = json::parse(kelp::health_json(scene.sources));
  CHECK(health["status"] == "degraded");
  REQUIRE(health["reasons"].size() == 2);
  CHECK(health["reasons"][0] == "volume server b:1 is avoided by http (open): Connection refused");
  CHECK(health["reasons"][1] == "volume server c:1 is avoided by http (half-open)");
}

TEST_CASE("remote volumes are listed with where they are, or why that is not known") {
  ReportsScene scene;
  scene.gateway().volumes = {{3, true, "", 1.5, {{"a:1", "pub:1", "dc1"}, {"b:1", "b:1", ""}}},
                             {4, false, "no such volume", 0.25, {}}};
  CHECK(json::parse(kelp::volumes_json(scene.sources)) == json::parse(R"({"volumes":[],"remote":[
          {"id":3,"known":true,"error":"","age_s":1.5,"locations":[
            {"url":"a:1","public_url":"pub:1","data_center":"dc1"},
            {"url":"b:1","public_url":"b:1","data_center":""}]},
          {"id":4,"known":false,"error":"no such volume","age_s":0.25,"locations":[]}]})"));
}

TEST_CASE("every counter of the gateway is in stats and in metrics") {
  ReportsScene scene;
  scene.gateway().counters = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  auto server = server_of("a:1", "half-open");
  server.reads = 21;
  server.failures = 22;
  server.bytes = 23;
  server.p50_ns = 1'000'000;
  server.p99_ns = 2'000'000;
  scene.gateway().servers = {server, server_of("b:1", "open"), server_of("c:1", "closed")};
  const json gateway = json::parse(kelp::stats_json(scene.sources))["gateway"];
  CHECK(gateway["counters"] ==
        json::parse(R"({"requests":1,"answered":2,"failed":3,"in_flight":4,"retries":5,
          "retries_refused":6,"cancelled":7,"servers_refused":8,"redirects_refused":9,
          "lookups":10,"lookups_coalesced":11})"));
  CHECK(gateway["servers"][0]["bytes"] == 23);
  const std::string metrics = kelp::metrics_text(scene.sources);
  for (const char* line : {
           "kelp_gateway_requests_total 1",
           "# TYPE kelp_gateway_in_flight gauge",
           "kelp_gateway_in_flight 4",
           "kelp_gateway_lookups_coalesced_total 11",
           "kelp_gateway_server_reads_total{server=\"a:1\",path=\"http\"} 21",
           "kelp_gateway_server_failures_total{server=\"a:1\",path=\"http\"} 22",
           "kelp_gateway_server_bytes_total{server=\"a:1\",path=\"http\"} 23",
           "# TYPE kelp_gateway_server_breaker gauge",
           "kelp_gateway_server_breaker{server=\"a:1\",path=\"http\"} 1",
           "kelp_gateway_server_breaker{server=\"b:1\",path=\"http\"} 2",
           "kelp_gateway_server_breaker{server=\"c:1\",path=\"http\"} 0",
           "# TYPE kelp_gateway_server_read_seconds summary",
           "kelp_gateway_server_read_seconds{server=\"a:1\",path=\"http\",quantile=\"0.5\"} 0.001",
           "kelp_gateway_server_read_seconds{server=\"a:1\",path=\"http\",quantile=\"0.99\"} 0.002",
           "kelp_gateway_server_read_seconds_count{server=\"a:1\",path=\"http\"} 21",
       }) {
    CAPTURE(line);
    CHECK(has_line(metrics, line));
  }
  check_exposition(metrics);
}

TEST_CASE("connections to other kelpds, RDMA ports and the HTTP read API are in metrics") {
  ReportsScene scene;
  const auto traffic = std::make_shared<kelp::LinkCounters>();
  for (int i = 0; i < 3; ++i) traffic->answers.add();
  traffic->bytes.add(4096);
  traffic->in_flight.store(2);
  const auto adapter = std::make_shared<kelp::VerbsCounters>();
  adapter->doorbells.add(7);
  kelp::PeerReport target;
  target.address = "10.0.0.5:18515";
  target.target = true;
  target.state = "up";
  target.slots = 64;
  target.path = KELP_PATH_VERBS;
  target.traffic = traffic;
  target.adapter = adapter;
  kelp::PeerReport gateway;
  gateway.address = "10.0.0.6:40001";
  gateway.node = "\"} 1\n";
  gateway.state = "up";
  scene.sources.peers = kelp::PeersReport{{target, gateway}, {1, 2, 3, 4}, {{5, 6, 7, 8}}, 99};
  scene.sources.rdma_ports = {{"rxe0", 1, {{"rcvd_rnr_err", 11}}}};
  kelp::sidecar::Counters sidecar;
  sidecar.requests.add(21);
  sidecar.reads[KELP_PATH_LOCAL].add(22);
  scene.sources.sidecar = &sidecar;
  const std::string metrics = kelp::metrics_text(scene.sources);
  const std::string at =
      "{target=\"10.0.0.5:18515\",path=\"verbs\",worker=\"0\",target_worker=\"0\"";
  for (const std::string& line : {
           "kelp_peer_up" + at + "} 1",
           "kelp_peer_credits" + at + "} 64",
           "kelp_peer_in_flight" + at + "} 2",
           "kelp_peer_answers_total" + at + "} 3",
           "kelp_peer_bytes_total" + at + "} 4096",
           "kelp_peer_doorbells_total" + at + "} 7",
           "kelp_peer_read_seconds_count" + at + "} 3",
           std::string("kelp_peer_gateways{path=\"tcp\"} 1"),
           std::string("kelp_peer_gateways{path=\"verbs\"} 0"),
           std::string("kelp_peer_accepted_total{path=\"tcp\"} 1"),
           std::string("kelp_peer_failed_total{path=\"verbs\"} 8"),
           std::string("kelp_rdma_pinned_bytes 99"),
           std::string("kelp_rdma_port_counter_total{device=\"rxe0\",port=\"1\","
                       "counter=\"rcvd_rnr_err\"} 11"),
           std::string("kelp_sidecar_requests_total 21"),
           std::string("kelp_sidecar_reads_total{path=\"local\"} 22"),
       }) {
    CAPTURE(line);
    CHECK(has_line(metrics, line));
  }
  check_exposition(metrics);
}

TEST_CASE("names that a server made up break neither JSON nor metrics") {
  ReportsScene scene;
  const std::string evil = "a\"} 1\nkelp_clients 99\\\xff";
  scene.gateway().masters = {failing(evil, "\xc3\x28\x01")};
  scene.gateway().servers = {server_of(evil, "open", evil)};
  scene.gateway().volumes = {{3, true, evil, 1e300, {{evil, evil, evil}}}};
  CHECK(json::accept(kelp::health_json(scene.sources)));
  CHECK(json::accept(kelp::volumes_json(scene.sources)));
  CHECK(json::accept(kelp::stats_json(scene.sources)));
  const std::string metrics = kelp::metrics_text(scene.sources);
  CHECK_FALSE(has_line(metrics, "kelp_clients 99\\\xff\",path=\"http\"} 0"));
  CHECK(metrics.find("server=\"a\\\"} 1\\nkelp_clients 99\\\\\xff\"") != std::string::npos);
  check_exposition(metrics);
}
