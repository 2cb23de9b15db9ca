#include <doctest/doctest.h>
#include <stdlib.h>

#include <nlohmann/json.hpp>

#include "control/devices_json.h"
#include "control/http_routes.h"
#include "control/peers/peer_connections.h"
#include "control/peers_json.h"
#include "control/run_dir.h"
#include "control/served_http.h"
#include "tools/peer_views.h"
#include "tools/run_kelpctl.h"

using kelp::HttpRequest;
using kelp::HttpResponse;
using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run_program;
using kelp::test::TempDir;

namespace {

/// A control socket that answers every path with `body`.
struct FakeDaemon {
  explicit FakeDaemon(std::string body, int status = 200)
      : http(
            [=](const HttpRequest&) {
              return HttpResponse{status, "application/json", body, {}, {}};
            },
            {}, "control.sock") {}
  kelp::test::ServedHttp http;

  Ran ask(std::vector<std::string> words) {
    words.insert(words.end(), {"--run-dir", http.dir()});
    return run_program(words);
  }
};

}  // namespace

TEST_CASE("health shows the facts, and exits by whether reads are answered") {
  FakeDaemon healthy(R"({"status":"healthy","reasons":[],"version":"0.1.0","pid":7,
    "uptime_s":93784,"workers":1,"clients":2,
    "volumes":{"serving":3,"revoked":2,"loading":0,"use_http":1,"refused":0},"attested":true,"extra":[1],
    "volume_servers":[{"url":"h:1","volumes":5,"failing_since":null,"failure":""},
                      {"url":"h:2","volumes":0,"failing_since":7.5,"failure":"refused"}]})");
  const Ran ran = healthy.ask({"health"});
  CHECK(ran.code == 0);
  CHECK(ran.out ==
        "status    healthy\nversion   0.1.0\npid       7\nup        1 d 2 h\nworkers   1\n"
        "clients   2\nvolumes   3 serving, 2 revoked, 0 loading, 1 use_http, 0 refused\nattested  "
        "yes\n"
        "server    h:1, has 5 volumes\nserver    h:2, does not answer: refused\n");
  FakeDaemon degraded(R"({"status":"degraded","reasons":["no hugepages"],"attested":false,
    "notes":["served unattested"]})");
  const Ran some = degraded.ask({"health"});
  CHECK(some.code == 0);
  CHECK(contains(some.out, "because   no hugepages\n"));
  CHECK(contains(some.out, "attested  no\nnote      served unattested\n"));
  for (const int status : {200, 503}) {
    FakeDaemon failed(R"({"status":"failed"})", status);
    CHECK(failed.ask({"health"}).code == 1);
    CHECK(contains(failed.ask({"health"}).out, "failed"));
    CHECK(failed.ask({"health", "--json"}).out == "{\"status\":\"failed\"}\n");
  }
}

TEST_CASE("volumes are a table") {
  FakeDaemon daemon(R"({"volumes":[
    {"id":3,"collection":"","state":"serving","reason":"","attested":false,"dir":"/d","version":3,
     "offset_bytes":4,"revision":0,"generation":1,"needles":12,"dat_bytes":1536,"idx_bytes":192,
     "reads":5,"corrupt":0},
    {"id":12,"collection":"pics","state":"refused","reason":"unknown super block"}]})");
  const Ran ran = daemon.ask({"volumes"});
  CHECK(ran.code == 0);
  CHECK(contains(ran.out, "ID  COLLECTION  STATE"));
  CHECK(contains(ran.out, "1.5 KiB"));
  CHECK(contains(ran.out, "12  pics        refused"));
  CHECK(contains(ran.out, "unknown super block\n"));
  FakeDaemon none(R"({"volumes":[]})");
  CHECK(none.ask({"volumes"}).out == "no volumes\n");
}

TEST_CASE("health shows masters and the servers behind the gateway") {
  FakeDaemon daemon(R"({"status":"degraded","reasons":[],"gateway":{
    "masters":[{"url":"m:1","asked":12,"failures":0,"failing_since_s":null,"failure":""},
               {"url":"m:2","asked":3,"failures":3,"failing_since_s":7.5,"failure":"refused"}],
    "servers":[{"server":"v:1","path":"http","breaker":"closed","reason":"","reads":5},
               {"server":"v:2","path":"http","breaker":"open","reason":"timed out","reads":0},
               {"server":"v:3","path":"http","breaker":"half-open","reason":"","reads":0}]}})");
  const Ran ran = daemon.ask({"health"});
  CHECK(ran.code == 0);
  CHECK(contains(ran.out,
                 "master    m:1, asked 12 times\nmaster    m:2, does not answer: refused\n"
                 "remote    v:1 by http, answered 5 reads\nremote    v:2 by http, open: timed out\n"
                 "remote    v:3 by http, half-open\n"));
  FakeDaemon none(R"({"status":"healthy","gateway":null})");
  CHECK_FALSE(contains(none.ask({"health"}).out, "master"));
}

TEST_CASE("remote volumes are a second table") {
  const std::string remote = R"("remote":[
    {"id":7,"known":true,"error":"","age_s":61.5,"locations":[
      {"url":"10.0.0.1:8080","public_url":"p:1","data_center":"dc1"},
      {"url":"10.0.0.2:8080","public_url":"p:2","data_center":""}]},
    {"id":12,"known":false,"error":"no such volume","age_s":0.5,"locations":[]}])";
  const std::string table =
      "\nREMOTE ID  KNOWN        AGE  SERVERS                             ERROR\n"
      "        7  yes    1 min 1 s  10.0.0.1:8080 (dc1), 10.0.0.2:8080\n"
      "       12  no           0 s  -                                   no such volume\n";
  FakeDaemon both(R"({"volumes":[{"id":3,"state":"serving"}],)" + remote + "}");
  const Ran ran = both.ask({"volumes"});
  CHECK(ran.code == 0);
  CHECK(ran.out.starts_with("ID  COLLECTION  STATE"));
  CHECK(ran.out.ends_with(table));
  FakeDaemon gateway(R"({"volumes":[],)" + remote + "}");
  CHECK(gateway.ask({"volumes"}).out == "no volumes on this host\n" + table);
}

TEST_CASE("stats show the gateway's counters and each server behind it") {
  FakeDaemon daemon(R"({"uptime_s":1,"workers":[],"gateway":{"counters":{"requests":12},
    "servers":[{"server":"v:1","path":"http","breaker":"open","reads":5,"failures":1,
                "bytes":2048,"p50_us":1.25,"p99_us":2000.5}]}})");
  CHECK(daemon.ask({"stats"}).out ==
        "up 1 s\n\ngateway:\n\n  COUNTER   VALUE\n  requests     12\n\n"
        "  SERVER  PATH  BREAKER  READS  FAILURES    BYTES  P50 (us)  P99 (us)\n"
        "  v:1     http  open         5         1  2.0 KiB       1.2    2000.5\n");
}

TEST_CASE("stats are counters and latencies per worker") {
  FakeDaemon daemon(
      R"({"uptime_s":61.5,"workers":[{"id":0,"cpu":1,"polling":"adaptive","cpu_time_s":2.5,
    "counters":{"reads":12345,"bytes":1},"latency_us":{"local":{"count":9,"p50":1.25,"p90":2,
    "p99":3,"p999":4,"max":100}}}]})");
  const Ran ran = daemon.ask({"stats"});
  CHECK(ran.code == 0);
  CHECK(ran.out ==
        "up 1 min 1 s\n\nworker 0: cpu 1, polling adaptive, CPU time 2.5 s\n\n"
        "  COUNTER  VALUE\n  bytes        1\n  reads    12345\n\n"
        "  LATENCY (us)  COUNT  P50  P90  P99  P99.9  MAX\n"
        "  local             9  1.2    2    3      4  100\n");
}

TEST_CASE("config lists each key with its origin") {
  FakeDaemon daemon(R"({"items":[{"key":"worker.spin_us","value":50,"origin":"default",
    "reloadable":true},{"key":"daemon.run_dir","value":"/r","origin":"--run-dir",
    "reloadable":false,"after_restart":"/s"}]})");
  CHECK(daemon.ask({"config"}).out ==
        "KEY             VALUE  ORIGIN     RELOAD\nworker.spin_us  50     default    yes\n"
        "daemon.run_dir  /r     --run-dir  restart for /s\n");
}

TEST_CASE("clients are a table") {
  FakeDaemon daemon(R"({"clients":[{"id":17,"name":"trainer\u001b","pid":5,"uid":1000,
    "attached_s":61.5,"channels":2,"data_bytes":1048576,"page_bytes":4096,"in_flight":3,
    "in_flight_bytes":2048,"leaving":true}]})");
  const Ran ran = daemon.ask({"clients"});
  CHECK(ran.code == 0);
  CHECK(contains(ran.out, "17  trainer\\x1b"));
  CHECK(contains(ran.out, "1 min 1 s"));
  CHECK(contains(ran.out, "leaving"));
  FakeDaemon none(R"({"clients":[]})");
  CHECK(none.ask({"clients"}).out == "no clients\n");
}

TEST_CASE("peers are a table with our worker first, and the counts below it") {
  const std::string body = R"({"peers":[
    {"address":"10.0.0.1:7411","node":"","role":"target","worker":1,"target_worker":2,
     "state":"up","error":"","key_id":7,"path":"tcp","credits":64,"traffic":{"in_flight":3,"answers":1200,
     "ok":1199,"late":1,"bytes":4096000,"p50_us":15.4,"p99_us":31.0,"max_us":900.5}},
    {"address":"10.0.0.2:7411","node":"","role":"target","worker":0,"target_worker":0,
     "state":"waiting","error":"Connection refused","key_id":7,"path":"tcp","credits":0,
     "traffic":null},
    {"address":"10.0.0.3:7411","node":"","role":"target","worker":0,"target_worker":0,
     "state":"connecting","error":"","key_id":0},
    {"address":"127.0.0.1:51234","node":"client\u001b","role":"gateway","worker":0,
     "target_worker":3,"state":"up","error":"","key_id":0}],
    "counters":{"accepted":3,"refused":2,"connected":1,"failed":4}})";
  FakeDaemon daemon(body);
  const Ran ran = daemon.ask({"peers"});
  CHECK(ran.code == 0);  // also with peers that are down
  CHECK(ran.out ==
        "ADDRESS          ROLE     PATH  NODE        WORKER  PEER WORKER  STATE        KEY  "
        "CREDITS  IN FLIGHT  ANSWERS    BYTES  P50 (us)  P99 (us)  ERROR\n"
        "10.0.0.1:7411    target   tcp                    1            2  up             7  "
        "     64          3     1200  3.9 MiB      15.4      31.0\n"
        "10.0.0.2:7411    target   tcp                    0            0  waiting        -  "
        "      -          -        -        -         -         -  Connection refused\n"
        "10.0.0.3:7411    target   -                      0            0  connecting     -  "
        "      -          -        -        -         -         -\n"
        "127.0.0.1:51234  gateway  -     client\\x1b       3            -  up          none  "
        "      -          -        -        -         -         -\n"
        "\nfrom gateways  3 accepted, 2 of them refused\n"
        "to targets     1 made, 4 attempts failed\n");
  CHECK(daemon.ask({"peers", "--json"}).out == body + "\n");
  const std::string coloured = kelp::view_peers(nlohmann::json::parse(body), true);
  CHECK(contains(coloured, "\x1b[32mup\x1b[0m"));
  CHECK(contains(coloured, "\x1b[31mwaiting\x1b[0m"));
  CHECK(contains(coloured, "\x1b[33mconnecting\x1b[0m"));
}

TEST_CASE("connections by TCP and by RDMA are told apart, and retries are shown as the port's") {
  kelp::PeerReport tcp;
  tcp.address = "10.0.0.1:18516";
  tcp.target = true;
  tcp.state = "up";
  tcp.slots = 64;
  kelp::PeerReport verbs = tcp;
  verbs.address = "10.0.0.1:18515";
  verbs.path = KELP_PATH_VERBS;
  verbs.slots = 32;
  verbs.adapter = std::make_shared<kelp::VerbsCounters>();
  verbs.rdma = kelp::RdmaPath{"rxe0", 1, true, "::ffff:10.0.0.2", "RoCE v2", 4096};
  kelp::PeersReport report{{tcp, verbs}, {1, 2, 3, 4}, {{5, 6, 7, 8}}, 1 << 20};
  report.rdma_ports = {{"rxe0", 1, {{"send_rnr_err", 9}, {"sent_pkts", 10}}}};
  FakeDaemon daemon(kelp::peers_json(report));
  CHECK(daemon.ask({"peers"}).out ==
        "ADDRESS         ROLE    PATH   NODE  WORKER  PEER WORKER  STATE   KEY  CREDITS  "
        "IN FLIGHT  ANSWERS  BYTES  P50 (us)  P99 (us)  ERROR\n"
        "10.0.0.1:18516  target  tcp               0            0  up     none       64  "
        "        -        -      -         -         -\n"
        "10.0.0.1:18515  target  verbs             0            0  up     none       32  "
        "        -        -      -         -         -\n"
        "\nfrom gateways by tcp    1 accepted, 2 of them refused\n"
        "to targets by tcp       3 made, 4 attempts failed\n"
        "from gateways by verbs  5 accepted, 6 of them refused\n"
        "to targets by verbs     7 made, 8 attempts failed\n"
        "pinned                  1.0 MiB\n"
        "\nDEVICE  PORT  COUNTER OF THE PORT  VALUE\n"
        "rxe0       1  send_rnr_err             9\n");
  const auto told = nlohmann::json::parse(daemon.ask({"peers", "--json"}).out);
  CHECK(told["peers"][0]["rdma"].is_null());
  CHECK(told["peers"][1]["rdma"] == nlohmann::json{{"device", "rxe0"},
                                                   {"port", 1},
                                                   {"gid", "::ffff:10.0.0.2"},
                                                   {"gid_type", "RoCE v2"},
                                                   {"mtu_bytes", 4096}});
  CHECK(told["rdma_ports"][0]["counters"]["sent_pkts"] == 10);
}

TEST_CASE("devices are a row per port, and its addresses below") {
  kelp::RdmaDevices found;
  kelp::RdmaDevice& card = found.devices.emplace_back();
  card.name = "mlx5_0";
  card.mlx5 = kelp::Mlx5Facts{1, 7};
  card.ports.push_back({1, "active", "Ethernet", 4096, 4096, 1 << 30, {}, ""});
  card.ports[0].gids.push_back({3, "::ffff:10.0.0.1", "RoCE v2", "eth0"});
  card.ports.push_back({2, "down", "Ethernet", 1024, 4096, 1 << 30, {}, "the port is down"});
  kelp::RdmaDevice& shut = found.devices.emplace_back();
  shut.name = "rxe0";
  shut.error = "cannot open it: Permission denied";
  FakeDaemon daemon(kelp::devices_json(found, {}, std::nullopt));
  const Ran ran = daemon.ask({"devices"});
  CHECK(ran.code == 0);
  CHECK(ran.out ==
        "DEVICE  PORT  USABLE  STATE   LINK       MTU  DRIVER  WHY NOT\n"
        "mlx5_0     1  yes     active  Ethernet  4096  mlx5\n"
        "mlx5_0     2  no      down    Ethernet  1024  mlx5    the port is down\n"
        "rxe0       -  no      -       -            -  -       cannot open it: Permission denied\n"
        "\n"
        "DEVICE  PORT  GID  ADDRESS          TYPE     INTERFACE\n"
        "mlx5_0     1    3  ::ffff:10.0.0.1  RoCE v2  eth0\n");
  CHECK(nlohmann::json::parse(daemon.ask({"devices", "--json"}).out)["usable"] == 1);
  CHECK(FakeDaemon(kelp::devices_json({}, {}, 1)).ask({"devices"}).out == "no RDMA device\n");
  CHECK(FakeDaemon(kelp::devices_json({{}, "no memory"}, {}, 1)).ask({"devices"}).out ==
        "no RDMA device: no memory\n");
}

TEST_CASE("the devices of this host can be listed, whatever there are") {
  const kelp::RdmaDevices found = kelp::list_rdma_devices();
  for (const kelp::RdmaDevice& device : found.devices) CHECK_FALSE(device.name.empty());
  CHECK(found.error.empty());
}

TEST_CASE("without peers it is said whether any are configured") {
  FakeDaemon none(kelp::peers_json(std::nullopt));
  const Ran ran = none.ask({"peers"});
  CHECK(ran.code == 0);
  CHECK(ran.out ==
        "no peers: neither [peer] nor a gateway that could discover them is configured\n");
  CHECK(FakeDaemon("{}").ask({"peers"}).out == "no peers\n");
  const auto lonely = kelp::PeerConnections::create({});
  REQUIRE(lonely);
  FakeDaemon waits(kelp::peers_json(
      kelp::PeersReport{(*lonely)->reports(), (*lonely)->counters(), std::nullopt, 0}));
  CHECK(waits.ask({"peers"}).out ==
        "no peers: no other kelpd is connected\n\n"
        "from gateways  0 accepted, 0 of them refused\nto targets     0 made, 0 attempts failed\n");
}

TEST_CASE("peers of a daemon that does not know of any exit with 1, and of no daemon with 13") {
  FakeDaemon older(R"({"error":"there is no /peers"})", 404);
  const Ran ran = older.ask({"peers"});
  CHECK(ran.code == 1);
  CHECK(contains(ran.err, "HTTP 404: there is no /peers"));
  const TempDir dir;
  CHECK(run_program({"peers", "--run-dir", dir.path()}).code == 13);
}

TEST_CASE("a reload tells what was applied and what needs a restart") {
  FakeDaemon daemon(R"({"applied":[{"key":"worker.spin_us","from":1,"to":2}],
    "needs_restart":[{"key":"worker.ops","from":64,"to":128}]})");
  const Ran ran = daemon.ask({"reload"});
  CHECK(ran.code == 0);
  CHECK(contains(ran.out, "worker.spin_us  1     2    applied\n"));
  CHECK(contains(ran.out, "worker.ops      64    128  needs a restart\n"));
  FakeDaemon broken(R"({"error":"f:3: worker.spin_us = x"})", 422);
  const Ran refused = broken.ask({"reload"});
  CHECK(refused.code == 1);
  CHECK(contains(refused.err, "f:3: worker.spin_us"));
}

TEST_CASE("disable, enable and drain are posted, and say what the daemon says") {
  for (const char* command : {"disable", "enable", "drain"}) {
    kelp::test::ServedHttp http(
        [](const HttpRequest& request) {
          return HttpResponse{200,
                              "application/json",
                              "{\"status\":\"" + request.method + request.path + "\"}",
                              {},
                              {}};
        },
        {}, "control.sock");
    const Ran ran = run_program({command, "--run-dir", http.dir()});
    CHECK(ran.code == 0);
    CHECK(ran.out == std::string("POST/") + command + "\n");
  }
}

TEST_CASE("answers of odd shapes are shown as far as they go, never a crash") {
  for (const char* body :
       {"{}", R"({"volumes":7,"workers":7,"items":7,"reasons":7,"uptime_s":-1})",
        R"({"volumes":[7,null,[],"x",{"id":{"a":[1]},"dat_bytes":"many"}],
            "workers":[7,null,{"counters":[],"latency_us":{"x":7}}],"items":[7,{}],
            "status":"healthy","reasons":[[],{}],"uptime_s":1e300})",
        R"({"gateway":7,"remote":7})",
        R"({"gateway":{"masters":7,"servers":[7,null,{"breaker":[]}],"counters":7},
            "status":"healthy","remote":[7,null,{"locations":[7,{}],"age_s":1e300}]})",
        R"({"gateway":{"masters":[7,{"url":"\u001b"}],"servers":7,
            "counters":{"\u001b":1}},"remote":[{"id":"\u001b","locations":7}],"status":"x"})",
        R"({"peers":7,"counters":7})", R"({"peers":[],"counters":{"accepted":"\u001b"}})",
        R"({"peers":[7,null,[],{"role":7,"state":[],"node":"\u001b","error":"\u001b",
            "key_id":-1},{"role":"gateway","state":"up","key_id":"\u001b"}],"counters":null})",
        R"({"peers":[{"path":"\u001b","credits":[]}],"counters":{},"rdma_counters":{},
            "rdma_ports":[7,{"counters":7},{"device":"\u001b","counters":{"rnr\u001b":"\u001b"}}]})",
        R"({"status":"\u001b[2J","volumes":{"serving":"\u001b"}})"}) {
    CAPTURE(body);
    FakeDaemon daemon(body);
    for (const char* command :
         {"health", "volumes", "stats", "config", "clients", "peers", "reload", "drain"}) {
      const Ran ran = daemon.ask({command});
      CHECK(ran.code <= 1);
      CHECK_FALSE(contains(ran.out, "\x1b"));
      CHECK_FALSE(contains(ran.err, "json.exception"));
    }
  }
}

TEST_CASE("what is not JSON, and what is an error, is said") {
  for (const char* body : {"", "<html>", "[1]", "nul", "{\"status\":"}) {
    FakeDaemon daemon(body);
    const Ran ran = daemon.ask({"health"});
    CHECK(ran.code == 1);
    CHECK(contains(ran.err, "is not JSON (HTTP 200)"));
  }
  FakeDaemon deep(std::string(1000000, '['));
  CHECK(deep.ask({"stats"}).code == 1);
  FakeDaemon missing(R"({"error":"nothing here"})", 404);
  const Ran ran = missing.ask({"volumes"});
  CHECK(ran.code == 1);
  CHECK(contains(ran.err, "HTTP 404: nothing here"));
  CHECK(missing.ask({"health"}).code == 1);
}

TEST_CASE("without a daemon the exit code is 13 and the sentence says where it was looked for") {
  const TempDir dir;
  const Ran nothing = run_program({"health", "--run-dir", dir.path()});
  CHECK(nothing.code == 13);
  CHECK(contains(nothing.err, dir.path() + "/control.sock: there is no such socket"));
  const Ran json = run_program({"health", "--json", "--run-dir", dir.path()});
  CHECK(contains(json.err, "{\"error\":\"cannot reach kelpd"));
  dir.write("control.sock", "");
  CHECK(run_program({"stats", "--run-dir", dir.path()}).code == 13);
}

TEST_CASE("a daemon that accepts and stays silent is a timeout") {
  const TempDir dir;
  const auto listener = kelp::UnixListener::create(dir / "control.sock");
  REQUIRE(listener);
  const Ran ran = run_program({"health", "--run-dir", dir.path()});
  CHECK(ran.code == 9);
  CHECK(contains(ran.err, "within 5 s"));
}

TEST_CASE("$KELP_RUN_DIR names the daemon, and proxies have no say") {
  FakeDaemon daemon(R"({"status":"healthy"})");
  ::setenv("KELP_RUN_DIR", daemon.http.dir().c_str(), 1);
  ::setenv("http_proxy", "http://127.0.0.1:1/", 1);
  CHECK(run_program({"health"}).code == 0);
  ::unsetenv("KELP_RUN_DIR");
  ::unsetenv("http_proxy");
}

TEST_CASE("a table into a full disk fails as output does") {
  FakeDaemon daemon(R"({"status":"healthy"})");
  CHECK(run_program({"health", "--run-dir", daemon.http.dir()}, {.out_path = "/dev/full"}).code ==
        14);
}
