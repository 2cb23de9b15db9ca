#include "control/trace_report.h"

#include <doctest/doctest.h>

#include "control/reports_scene.h"

using kelp::FileId;
using kelp::VolumeReport;
using kelp::VolumeState;
using kelp::test::ReportsScene;
using kelp::test::server_of;
using nlohmann::json;

namespace {

const FileId kFid = kelp::parse_file_id("3,01637037d6").value();

VolumeReport volume(std::uint32_t server, std::uint32_t id, VolumeState state,
                    const std::string& reason = "") {
  VolumeReport report;
  report.key = {server, kelp::VolumeId{id}};
  report.directory = "/d" + std::to_string(server);
  report.state = state;
  report.reason = reason;
  return report;
}

/// An open volume of server 1 that it vouches for, or not.
VolumeReport attested(std::shared_ptr<kelp::ServerPulse> pulse, std::uint32_t server, bool holds) {
  VolumeReport report = volume(server, 3, VolumeState::kServing);
  kelp::AttestedFacts facts;
  facts.key = report.key;
  pulse->trusted_until = UINT64_MAX;
  auto attestation = std::make_shared<kelp::Attestation>(facts, pulse);
  attestation->watched();
  if (holds) attestation->attest(attestation->ticket());
  report.attestation = attestation;
  return report;
}

struct Scene : ReportsScene {
  json trace(const std::vector<VolumeReport>& volumes = {}) const {
    return json::parse(kelp::trace_json(kFid, volumes, sources));
  }
  void with_servers(std::initializer_list<const char*> urls) {
    for (const char* url : urls) config.target.volume_servers.push_back({url, {"/d"}, ""});
  }
  void located(std::vector<kelp::Location> locations) {
    gateway().volumes = {{3, true, "", 2, std::move(locations)}};
  }
};

std::vector<std::string> servers_of(const json& trace) {
  std::vector<std::string> servers;
  for (const json& path : trace["paths"]) {
    if (path["path"] == "http") servers.push_back(path["server"].get<std::string>());
  }
  return servers;
}

}  // namespace

TEST_CASE("a trace tells the parts of the file id") {
  const Scene scene;
  const json trace = scene.trace();
  CHECK(trace["fid"] == "3,01637037d6");
  CHECK(trace["volume"] == 3);
  CHECK(trace["needle"] == "1");
  CHECK(trace["cookie"] == "637037d6");
  const FileId largest{kelp::VolumeId{UINT32_MAX}, kelp::NeedleId{UINT64_MAX},
                       kelp::Cookie{UINT32_MAX}};
  const json huge = json::parse(kelp::trace_json(largest, scene.sources));
  CHECK(huge["volume"] == 4294967295);
  CHECK(huge["needle"] == "ffffffffffffffff");
  CHECK(huge["cookie"] == "ffffffff");
}

TEST_CASE("without a gateway and without the volume no path is usable, and each says why") {
  const Scene scene;
  const json trace = scene.trace({volume(0, 4, VolumeState::kServing)});
  CHECK(trace["local"]["state"] == "absent");
  CHECK(trace["remote"].is_null());
  CHECK(trace["resolving"] == false);
  CHECK(trace["paths"] ==
        json::parse(R"([{"path":"local","server":null,"usable":false,"why":"not on this host"},
          {"path":"http","server":null,"usable":false,
           "why":"there is no gateway: no master is configured"}])"));
}

TEST_CASE("a volume of this host tells its state and the reason") {
  const Scene scene;
  const auto local = [&](VolumeState state, const char* reason) {
    return scene.trace({volume(0, 3, state, reason)});
  };
  const json serving = local(VolumeState::kServing, "");
  CHECK(serving["local"] == json::parse(R"({"state":"serving","attested":false,"reason":"",
                                            "volume_server":null,"dir":"/d0"})"));
  CHECK(serving["paths"][0]["usable"] == true);
  CHECK(serving["paths"][0]["why"] == "");
  for (const auto& [state, name] : {std::pair{VolumeState::kRefused, "refused"},
                                    std::pair{VolumeState::kUseHttp, "use_http"}}) {
    const json trace = local(state, "unknown super block");
    CHECK(trace["local"]["state"] == name);
    CHECK(trace["paths"][0]["usable"] == false);
    CHECK(trace["paths"][0]["why"] == "unknown super block");
  }
  CHECK(local(VolumeState::kLoading, "")["paths"][0]["why"] == "its index is being read");
}

TEST_CASE("a volume that its server does not vouch for is not read here") {
  Scene scene;
  scene.with_servers({"127.0.0.1:8080", "127.0.0.1:8081"});
  const auto pulse = std::make_shared<kelp::ServerPulse>();
  const json held = scene.trace({attested(pulse, 1, true)});
  CHECK(held["local"]["attested"] == true);
  CHECK(held["local"]["volume_server"] == "127.0.0.1:8080");
  CHECK(held["paths"][0]["usable"] == true);
  const json revoked = scene.trace({attested(pulse, 1, false)});
  CHECK(revoked["local"]["state"] == "revoked");
  CHECK(revoked["local"]["attested"] == false);
  CHECK(revoked["paths"][0]["why"] == "not attested by its volume server");
  // The second server's copy serves; a directory's never stands in for a server's.
  const json second = scene.trace({attested(pulse, 1, false), attested(pulse, 2, true)});
  CHECK(second["local"]["volume_server"] == "127.0.0.1:8081");
  CHECK(second["paths"][0]["usable"] == true);
  const json twin = scene.trace({volume(0, 3, VolumeState::kServing), attested(pulse, 1, false)});
  CHECK(twin["local"]["state"] == "revoked");
}

TEST_CASE("while the gateway does not know the volume yet, a trace is to be asked again") {
  Scene scene;
  scene.gateway().volumes = {{4, true, "", 0, {{"a:1", "a:1", ""}}}};
  const json trace = scene.trace();
  CHECK(trace["resolving"] == true);
  CHECK(trace["remote"].is_null());
  CHECK(trace["paths"][1]["usable"] == false);
  CHECK(trace["paths"][1]["why"] == "a master is being asked where the volume is");
}

TEST_CASE("a volume that no master knows says so") {
  Scene scene;
  scene.gateway().volumes = {{3, false, "a:9333 knows no volume 3", 0.5, {}}};
  json trace = scene.trace();
  CHECK(trace["resolving"] == false);
  CHECK(trace["remote"]["known"] == false);
  CHECK(trace["paths"][1]["why"] == "a:9333 knows no volume 3");
  scene.located({});
  CHECK(scene.trace()["paths"][1]["why"] == "a master names no volume server for it");
}

TEST_CASE("each place is told with its breaker, those that cannot be tried last") {
  Scene scene;
  scene.located({{"a:1", "pub:1", "dc1"}, {"b:1", "b:1", ""}, {"c:1", "c:1", ""}, {"d:1", "", ""}});
  auto other_path = server_of("d:1", "open", "by another path");
  other_path.path = "tcp";
  scene.gateway().servers = {server_of("a:1", "open", "Connection refused"),
                             server_of("b:1", "half-open", "timed out"), server_of("c:1", "closed"),
                             other_path};
  const json trace = scene.trace();
  CHECK(trace["paths"] ==
        json::parse(R"([{"path":"local","server":null,"usable":false,"why":"not on this host"},
          {"path":"http","server":"c:1","usable":true,"why":""},
          {"path":"http","server":"d:1","usable":true,"why":""},
          {"path":"http","server":"b:1","usable":true,"why":"half-open: timed out"},
          {"path":"http","server":"a:1","usable":false,"why":"open: Connection refused"}])"));
  CHECK(trace["remote"]["age_s"] == 2);
  CHECK(trace["remote"]["locations"][1]["breaker"].is_null());
  CHECK(trace["remote"]["locations"][3] ==
        json::parse(R"({"url":"a:1","public_url":"pub:1","data_center":"dc1","breaker":"open",
                        "reason":"Connection refused"})"));
}

TEST_CASE("servers of this host come first, then those of the preferred data center") {
  Scene scene;
  scene.located({{"far:1", "", "dc2"}, {"near:1", "", "dc1"}, {"here:1", "", "dc2"}});
  CHECK(servers_of(scene.trace()) == std::vector<std::string>{"far:1", "near:1", "here:1"});
  scene.config.gateway.data_center = "dc1";
  CHECK(servers_of(scene.trace()) == std::vector<std::string>{"near:1", "far:1", "here:1"});
  scene.with_servers({"http://here:1"});
  CHECK(servers_of(scene.trace()) == std::vector<std::string>{"here:1", "near:1", "far:1"});
  scene.gateway().servers = {server_of("here:1", "open", "")};
  CHECK(servers_of(scene.trace()) == std::vector<std::string>{"near:1", "far:1", "here:1"});
}

TEST_CASE("while draining or disabled no path is usable") {
  Scene scene;
  scene.located({{"a:1", "a:1", ""}, {"b:1", "b:1", ""}});
  scene.gateway().servers = {server_of("b:1", "open", "Connection refused")};
  const std::vector<VolumeReport> local{volume(0, 3, VolumeState::kServing)};
  scene.sources.disabled = true;
  for (const char* why :
       {"disabled by an operator (kelpctl enable)", "draining: no new requests are taken"}) {
    const json trace = scene.trace(local);
    for (const json& path : trace["paths"]) CHECK(path["usable"] == false);
    CHECK(trace["paths"][0]["why"] == why);
    CHECK(trace["paths"][1]["why"] == why);
    CHECK(trace["paths"][2]["why"] == "open: Connection refused");  // the nearer reason stays
    scene.sources.draining = true;
  }
}

TEST_CASE("what masters and servers say cannot break a trace") {
  Scene scene;
  const std::string evil = "\"},\n\xff\xc3\x28\x01";
  scene.located({{evil, evil, evil}});
  scene.gateway().servers = {server_of(evil, evil, evil)};
  CHECK(json::accept(kelp::trace_json(kFid, {}, scene.sources)));
}
