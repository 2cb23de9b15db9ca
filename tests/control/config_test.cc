#include "control/config.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/temp_dir.h"

using kelp::CommandLine;
using kelp::Config;
using kelp::Result;
using kelp::test::TempDir;

namespace {

constexpr const char* kNoFile = "/nonexistent/kelpd.toml";

/// Loads `toml` (at DIR/kelpd.toml) with one real directory added by flag unless told otherwise.
struct Loader {
  TempDir dir;
  CommandLine flags;

  Loader() { flags.volume_dirs = {dir.path()}; }

  Result<Config> load(const std::string& toml) {
    flags.config_file = dir.write("kelpd.toml", toml);
    return kelp::load_config(flags, kNoFile);
  }
  /// The error, without the directory in front of "kelpd.toml".
  std::string error(const std::string& toml) {
    const Result<Config> config = load(toml);
    if (config) return "(accepted)";
    const std::string& what = config.error().what;
    const std::string prefix = dir.path() + "/";
    return what.starts_with(prefix) ? what.substr(prefix.size()) : what;
  }
};

const kelp::ConfigOrigin& origin(const Config& config, const std::string& key) {
  for (const kelp::ConfigOrigin& item : config.origins) {
    if (item.key == key) return item;
  }
  FAIL("no origin for " << key);
  return config.origins.front();
}

}  // namespace

TEST_CASE("every value of a file arrives in its struct") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const std::string data = loader.dir.path();
  const Result<Config> config = loader.load(
      "[daemon]\nrun_dir = \"/r\"\nlog_level = \"error\"\nlog_format = \"json\"\n"
      "user = \"u\"\ngroup = \"g\"\ndrain_timeout_ms = 0\n"
      "[worker]\ncpus = [1]\npolling = \"poll\"\nspin_us = 100000\nops = 64\n"
      "[client]\nring_entries = 65536\nmax_clients = 1\nmax_channels = 1\n"
      "max_data_bytes = \"64KiB\"\nmax_timeout_ms = 1\nhugepages = \"require\"\n"
      "max_requests = 7\nmax_request_bytes = \"1MiB\"\nmax_clients_per_uid = 3\n"
      "max_channels_per_uid = 4\nmax_data_bytes_per_uid = \"5KiB\"\n"
      "allow_uids = [0, 4294967294]\nallow_gids = [100]\n"
      "socket_mode = \"0600\"\nsocket_group = \"kelp\"\n"
      "[target]\nrescan_ms = 100\ngzip_max_output_bytes = 65536\ngzip_max_ratio = 1\n"
      "inline_inflate_bytes = 0\nreload_wait_ms = 0\n"
      "[gateway]\nmasters = [\"a:1\", \"https://[::1]:9333\"]\nhttps = true\nca_file = \"/ca\"\n"
      "data_center = \"dc1\"\nallow_volume_servers = \"b:2\"\nread_key_file = \"/key\"\n"
      "lookup_ttl_ms = 100\nconnect_timeout_ms = 10\nconnections_per_server = 1\n"
      "[[target.directory]]\npath = \"" +
      data + "\"\nidx_dir = \"/\"\n");
  REQUIRE(config);
  CHECK(config->daemon.run_dir == "/r");
  CHECK(config->daemon.log_level == kelp::LogLevel::kError);
  CHECK(config->daemon.log_format == kelp::LogFormat::kJson);
  CHECK(config->daemon.user == "u");
  CHECK(config->daemon.group == "g");
  CHECK(config->daemon.drain_timeout_ms == 0);
  CHECK(config->worker.cpus == std::vector{1});
  CHECK(config->worker.polling == kelp::Polling::kPoll);
  CHECK(config->worker.spin_us == 100000);
  CHECK(config->worker.ops == 64);
  CHECK(config->client.ring_entries == 65536);
  CHECK(config->client.max_clients == 1);
  CHECK(config->client.max_channels == 1);
  CHECK(config->client.max_data_bytes == 65536);
  CHECK(config->client.max_timeout_ms == 1);
  CHECK(config->client.max_requests == 7);
  CHECK(config->client.max_request_bytes == 1 << 20);
  CHECK(config->client.max_clients_per_uid == 3);
  CHECK(config->client.max_channels_per_uid == 4);
  CHECK(config->client.max_data_bytes_per_uid == 5120);
  CHECK(config->client.allow_uids == std::vector<std::uint32_t>{0, 4294967294});
  CHECK(config->client.allow_gids == std::vector<std::uint32_t>{100});
  CHECK(config->client.hugepages == kelp::HugePages::kRequire);
  CHECK(config->client.socket_mode == 0600);
  CHECK(config->client.socket_group == "kelp");
  CHECK(config->target.rescan_ms == 100);
  CHECK(config->target.gzip_max_output_bytes == 65536);
  CHECK(config->target.gzip_max_ratio == 1);
  CHECK(config->target.inline_inflate_bytes == 0);
  CHECK(config->target.reload_wait_ms == 0);
  REQUIRE(config->target.directories.size() == 1);
  CHECK(config->target.directories[0] == kelp::TargetDirectory{data, "/"});
  CHECK(config->gateway.masters == std::vector<std::string>{"a:1", "https://[::1]:9333"});
  CHECK(config->gateway.https);
  CHECK(config->gateway.ca_file == "/ca");
  CHECK(config->gateway.data_center == "dc1");
  CHECK(config->gateway.allow_volume_servers == std::vector<std::string>{"b:2"});
  CHECK(config->gateway.read_key_file == "/key");
  CHECK(config->gateway.lookup_ttl_ms == 100);
  CHECK(config->gateway.connect_timeout_ms == 10);
  CHECK(config->gateway.connections_per_server == 1);
}

TEST_CASE("a value out of range is refused with file, line, key and range") {
  Loader loader;
  CHECK(loader.error("[worker]\n\nspin_us = 900000\n") ==
        "kelpd.toml:3: worker.spin_us = 900000 is out of range: 0..100000 microseconds");
  CHECK(loader.error("[worker]\nops = 63\n").find("64..65536 reads") != std::string::npos);
  CHECK(loader.error("[worker]\nspin_us = -1\n").find("out of range") != std::string::npos);
  CHECK(loader.error("[worker]\nspin_us = 4294967297\n").find("out of range") != std::string::npos);
  CHECK(loader.error("[worker]\nspin_us = -9223372036854775808\n").find("out of range") !=
        std::string::npos);
  CHECK(loader.error("[client]\nring_entries = 300\n") ==
        "kelpd.toml:2: client.ring_entries = 300 is not a power of two: "
        "4..65536 entries");
  CHECK(loader.error("[client]\nmax_data_bytes = \"2TiB\"\n") ==
        "kelpd.toml:2: client.max_data_bytes = '2TiB' is out of range: 64 KiB..1 TiB");
  CHECK(loader.error("[client]\nmax_data_bytes = -1\n").find("out of range") != std::string::npos);
  CHECK(loader.error("[client]\nmax_data_bytes = \"64MB\"\n").find("KiB, MiB") !=
        std::string::npos);
}

TEST_CASE("limits that would keep the HTTP read API from attaching are refused, with both keys") {
  Loader loader;
  CHECK(loader.error("[client]\nmax_data_bytes = \"49MiB\"\n[sidecar]\nlisten = [\"a:1\"]\n") ==
        "kelpd.toml:2: client.max_data_bytes = 49 MiB is too little for the HTTP read API "
        "(sidecar.listen, " +
            loader.dir.path() +
            "/kelpd.toml:4), a client with a data area of 50 MiB: allow 50 MiB or more, or remove "
            "sidecar.listen");
  const std::string by_uid =
      loader.error("[client]\nmax_data_bytes_per_uid = 1\n[sidecar]\nunix_socket = true\n");
  CHECK(by_uid.find("kelpd.toml:2: client.max_data_bytes_per_uid = 1 B is too little") == 0);
  CHECK(by_uid.find("or remove sidecar.unix_socket") != std::string::npos);
  CHECK(
      loader.load("[client]\nmax_data_bytes = \"50MiB\"\nmax_data_bytes_per_uid = \"50MiB\"\n"
                  "[sidecar]\nlisten = [\"a:1\"]\n"));
  CHECK(loader.load("[client]\nmax_data_bytes = \"64KiB\"\nmax_data_bytes_per_uid = 1\n"));
}

TEST_CASE("a value of the wrong kind is refused with the kind that would do") {
  Loader loader;
  CHECK(loader.error("[worker]\nspin_us = \"50\"\n") ==
        "kelpd.toml:2: worker.spin_us = '50' is a text: expected a whole number, 0..100000 "
        "microseconds");
  CHECK(loader.error("[worker]\nspin_us = 1.5\n").find("a number with a fraction") !=
        std::string::npos);
  CHECK(loader.error("[worker]\nspin_us = true\n").find("a boolean") != std::string::npos);
  CHECK(loader.error("[worker]\nspin_us = [1]\n").find("a list") != std::string::npos);
  CHECK(loader.error("[worker.spin_us]\n").find("a table") != std::string::npos);
  CHECK(loader.error("[worker]\npolling = 2024-01-01\n").find("date") != std::string::npos);
  CHECK(loader.error("[worker]\npolling = \"fast\"\n") ==
        "kelpd.toml:2: worker.polling = 'fast' is none of adaptive, poll");
  CHECK(loader.error("[daemon]\nrun_dir = \"run\"\n").find("not an absolute path") !=
        std::string::npos);
  CHECK(loader.error("[daemon]\nrun_dir = \"/a\\u0000b\"\n").find("control character") !=
        std::string::npos);
  CHECK(loader.error("[daemon]\nrun_dir = \"/" + std::string(94, 'x') + "\"\n")
            .find("longer than 94 bytes") != std::string::npos);
}

TEST_CASE("an unknown key or section is refused with the one that was meant") {
  Loader loader;
  CHECK(loader.error("[worker]\nspinus = 5\n") ==
        "kelpd.toml:2: unknown key worker.spinus: did you mean worker.spin_us?");
  CHECK(loader.error("[wroker]\nspin_us = 5\n") ==
        "kelpd.toml:1: unknown section wroker: did you mean worker?");
  CHECK(loader.error("spin_us = 5\n") ==
        "kelpd.toml:1: unknown key spin_us: did you mean worker.spin_us?");
  CHECK(loader.error("[client]\nspin_us = 5\n").find("worker.spin_us") != std::string::npos);
  CHECK(loader.error("[zebra]\n").find("docs/configuration.md") != std::string::npos);
  CHECK(loader.error("worker = 3\n").find("write [worker]") != std::string::npos);
  CHECK(loader.error("\"worker.spin_us\" = 5\n").find("unknown key") != std::string::npos);
  CHECK(loader.error(std::string(900, 'k') + " = 5\n").find("unknown key") != std::string::npos);
}

TEST_CASE("the first mistake in the file is the one reported") {
  Loader loader;
  CHECK(loader.error("[worker]\nspin_us = -1\n[client]\nbad = 1\n").starts_with("kelpd.toml:2:"));
  CHECK(loader.error("[worker]\nbad = 1\n[client]\nmax_clients=0\n").starts_with("kelpd.toml:2:"));
}

TEST_CASE("there is a worker for each CPU that is named, up to 16") {
  Loader loader;
  CHECK(loader.load("[worker]\ncpus = [1, 3]\n")->worker.cpus == std::vector{1, 3});
  CHECK(loader.error("[worker]\ncpus = [1, 1]\n").find("twice") != std::string::npos);
  CHECK(loader.error("[worker]\ncpus = [-1]\n").find("0..1023") != std::string::npos);
  CHECK(loader.error("[worker]\ncpus = [\"1\"]\n").find("a list of texts") != std::string::npos);
  CHECK(loader.load("[worker]\ncpus = \"3\"\n")->worker.cpus == std::vector{3});
  CHECK(loader.load("[worker]\ncpus = []\n")->worker.cpus.empty());
  loader.flags.cpus = "2-3";
  CHECK(loader.load("")->worker.cpus == std::vector{2, 3});
  loader.flags.cpus = "0-16";
  CHECK(loader.error("").find("--cpus 0-16 asks for 17 workers: name at most 16 CPUs") == 0);
}

TEST_CASE("a socket everyone may write to is refused") {
  Loader loader;
  CHECK(loader.error("[client]\nsocket_mode = \"0666\"\n").find("every user") != std::string::npos);
  CHECK(loader.error("[client]\nsocket_mode = \"0060\"\n").find("locks out") != std::string::npos);
  for (const char* bad : {"\"\"", "\"rw\"", "\"0868\"", "\"4660\"", "660", "\"-660\""}) {
    CAPTURE(bad);
    CHECK(loader.error(std::string("[client]\nsocket_mode = ") + bad + "\n").find("octal") !=
          std::string::npos);
  }
}

TEST_CASE("flags override the file, and each value tells where it comes from") {
  Loader loader;
  loader.flags.run_dir = "/elsewhere";
  loader.flags.log_level = "debug";
  const Result<Config> config = loader.load(
      "[daemon]\nrun_dir = '/r'\n[worker]\nspin_us = 9\n"
      "[[target.directory]]\npath = '/nowhere/at/all'\n");
  REQUIRE(config);
  CHECK(config->daemon.run_dir == "/elsewhere");
  CHECK(config->daemon.log_level == kelp::LogLevel::kDebug);
  CHECK(config->target.directories.size() == 1);
  CHECK(origin(*config, "daemon.run_dir").origin == "--run-dir");
  CHECK(origin(*config, "daemon.run_dir").value == "\"/elsewhere\"");
  CHECK(origin(*config, "worker.spin_us").origin == loader.dir / "kelpd.toml:4");
  CHECK(origin(*config, "worker.spin_us").value == "9");
  CHECK(origin(*config, "worker.ops").origin == "default");
  CHECK(origin(*config, "client.socket_mode").value == "\"0660\"");
  CHECK(origin(*config, "target.directory[0].path").origin == "--volume-dir");
}

TEST_CASE("a flag's bad value names the flag") {
  Loader loader;
  loader.flags.log_level = "loud";
  CHECK(loader.error("") == "--log-level loud is none of debug, info, warning, error");
}

TEST_CASE(
    "a list of servers holds host:port, each once, or is refused with the one that does not fit") {
  Loader loader;
  for (const char* key : {"masters", "allow_volume_servers"}) {
    const auto error = [&](const std::string& value) {
      return loader.error("[gateway]\n" + std::string(key) + " = " + value + "\n");
    };
    CAPTURE(key);
    for (const char* bad :
         {"", "a", ":1", "a:", "a:0", "a:65536", "a:-1", "a:1/x", "u@a:1", "ftp://a:1", "a b:1",
          "a:1?x", "a:1#x", "http://", "https://a", "a:1,b:2", "http://http://a:1"}) {
      CAPTURE(bad);
      CHECK(error("[\"ok:1\", \"" + std::string(bad) + "\"]")
                .find("holds \"" + std::string(bad) + "\", which is not host:port") !=
            std::string::npos);
    }
    CHECK(error("[\"a\\n:1\"]").find("control character") != std::string::npos);
    CHECK(error("[\"" + std::string(256, 'a') + ":1\"]").find("longer than 255") !=
          std::string::npos);
    CHECK(error("[\"a:1\", \"b:1\", \"a:1\"]").find("holds \"a:1\" twice") != std::string::npos);
    CHECK(error("[1]").find("is a list: expected a list of \"host:port\"") != std::string::npos);
    CHECK(error("[\"a:1\", 1]").find("a list that holds a text") != std::string::npos);
    CHECK(error("9333").find("is a whole number") != std::string::npos);
    CHECK(loader.load("[gateway]\n" + std::string(key) + " = []\n"));
  }
  std::string many;
  for (int i = 0; i < 1025; ++i) many += "\"a:" + std::to_string(i + 1) + "\",\n";
  CHECK(loader.error("[gateway]\nmasters = [\n" + many + "]\n").find("holds more than 1024") !=
        std::string::npos);
}

TEST_CASE("bad values of the gateway are refused by line, key and range") {
  Loader loader;
  const auto error = [&](const std::string& line) { return loader.error("[gateway]\n" + line); };
  CHECK(error("lookup_ttl_ms = 99\n") ==
        "kelpd.toml:2: gateway.lookup_ttl_ms = 99 is out of range: 100..3600000 milliseconds");
  CHECK(error("connect_timeout_ms = 60001\n").find("10..60000 milliseconds") != std::string::npos);
  CHECK(error("connections_per_server = 0\n").find("1..1024 connections") != std::string::npos);
  CHECK(error("connections_per_server = -1\n").find("out of range") != std::string::npos);
  CHECK(error("https = \"yes\"\n").find("expected true or false") != std::string::npos);
  for (const char* key : {"ca_file", "read_key_file"}) {
    CAPTURE(key);
    const std::string line = key;
    CHECK(error(line + " = \"relative\"\n").find("start it with /") != std::string::npos);
    CHECK(error(line + " = \"/a\\u0000b\"\n").find("control character") != std::string::npos);
    CHECK(error(line + " = 1\n").find("expected an absolute path") != std::string::npos);
    CHECK(loader.load("[gateway]\n" + line + " = \"\"\n"));
  }
  CHECK(error("data_center = \"a\\tb\"\n").find("control character") != std::string::npos);
  CHECK(error("master = \"a:1\"\n").find("did you mean gateway.masters?") != std::string::npos);
  CHECK(loader.error("[gatewya]\nhttps = true\n").find("did you mean gateway?") !=
        std::string::npos);
  CHECK(loader.error("gateway = 1\n").find("write [gateway]") != std::string::npos);
}

TEST_CASE("a gateway needs no directory, and --master overrides the file's masters") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const auto pure = loader.load("[gateway]\nmasters = [\"a:1\"]\n");
  REQUIRE_MESSAGE(pure, (pure ? "" : pure.error().what));
  CHECK(pure->target.directories.empty());
  CHECK(origin(*pure, "gateway.masters").value == "[\"a:1\"]");
  CHECK(origin(*pure, "gateway.masters").origin.ends_with("kelpd.toml:2"));
  CHECK_FALSE(origin(*pure, "gateway.masters").reloadable);
  loader.flags.masters = {"b:2", "http://c:3"};
  for (const char* toml : {"", "[gateway]\nmasters = \"a:1\"\nhttps = true\n"}) {
    const auto config = loader.load(toml);
    REQUIRE(config);
    CHECK(config->gateway.masters == loader.flags.masters);
    CHECK(origin(*config, "gateway.masters").origin == "--master");
  }
  loader.flags.masters = {"b:2", "nowhere"};
  CHECK(loader.error("") ==
        "--master holds \"nowhere\", which is not host:port, alone or after http:// or https://");
}

TEST_CASE("what /config shows of the read key is the path of its file") {
  Loader loader;
  const std::string path = loader.dir.write("key", "a-secret-of-the-cluster");
  const auto config = loader.load("[gateway]\nread_key_file = \"" + path + "\"\n");
  REQUIRE(config);
  CHECK(origin(*config, "gateway.read_key_file").value == "\"" + path + "\"");
  for (const auto& item : config->origins) {
    CHECK(item.value.find("a-secret") == std::string::npos);
  }
}

TEST_CASE("with nothing to serve the error says what to add") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const std::string error = loader.error("");
  CHECK(error.find("--volume-dir") != std::string::npos);
  CHECK(error.find("[[target.volume_server]]") != std::string::npos);
  CHECK(error.find("--master") != std::string::npos);
  CHECK(error.find("[gateway]") != std::string::npos);
}

TEST_CASE("volume servers of a file arrive, in order, each with its directories in order") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const std::string data = loader.dir.path();
  const auto config = loader.load(
      "[target]\ntrust_local_clients = true\n"
      "[[target.volume_server]]\nurl = \"127.0.0.1:8080\"\ndirs = [\"/usr\", \"" +
      data +
      "\"]\nidx_dir = \"/\"\n"
      "[[target.volume_server]]\nurl = \"https://[::1]:81\"\ndirs = \"/etc\"\n");
  REQUIRE_MESSAGE(config, (config ? "" : config.error().what));
  CHECK(config->target.trust_local_clients);
  CHECK(config->target.directories.empty());
  REQUIRE(config->target.volume_servers.size() == 2);
  CHECK(config->target.volume_servers[0] ==
        kelp::TargetVolumeServer{"127.0.0.1:8080", {"/usr", data}, "/"});
  CHECK(config->target.volume_servers[1] ==
        kelp::TargetVolumeServer{"https://[::1]:81", {"/etc"}, ""});
  CHECK(origin(*config, "target.volume_server[0].dirs").value == "[\"/usr\", \"" + data + "\"]");
  CHECK(origin(*config, "target.volume_server[1].url").origin.ends_with("kelpd.toml:8"));
}

TEST_CASE("a volume server that cannot be one is refused by line and key") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const auto error = [&](const std::string& lines) {
    return loader.error("[[target.volume_server]]\n" + lines);
  };
  CHECK(error("dirs = [\"/usr\"]\n").find("kelpd.toml:1: [[target.volume_server]] has no url") ==
        0);
  CHECK(error("url = \"a:1\"\n").find("kelpd.toml:1: [[target.volume_server]] has no dirs") == 0);
  CHECK(error("url = \"a:1\"\ndirs = []\n").find("kelpd.toml:3: target.volume_server.dirs") == 0);
  CHECK(error("url = \"a:1\"\ndirs = [1]\n").find("a list") != std::string::npos);
  CHECK(error("url = \"a:1\"\ndirs = [\"x\"]\n").find("not an absolute path") != std::string::npos);
  CHECK(error("url = \"a:1\"\ndirs = [\"/nonexistent\"]\n").find("kelpd.toml:3:") == 0);
  CHECK(error("url = \"a:1\"\ndirs = [\"/usr\", \"/usr/.\"]\n").find("named twice") !=
        std::string::npos);
  CHECK(error("url = \"a:1\"\ndirs = [\"/usr\"]\nidx_dri = 1\n")
            .find("target.volume_server.idx_dir?") != std::string::npos);
  for (const char* url :
       {"", "a", ":1", "a:", "a:0", "a:65536", "a:1/x", "u@a:1", "ftp://a:1", "a b:1"}) {
    CAPTURE(url);
    CHECK(
        error("url = \"" + std::string(url) + "\"\ndirs = [\"/usr\"]\n").find("is not host:port") !=
        std::string::npos);
  }
  CHECK(loader
            .error("[[target.volume_server]]\nurl = \"a:1\"\ndirs = \"/usr\"\n"
                   "[[target.volume_server]]\nurl = \"a:1\"\ndirs = \"/etc\"\n")
            .find("kelpd.toml:5: the volume server a:1 is named twice") == 0);
  CHECK(loader
            .error("[[target.volume_server]]\nurl = \"a:1\"\ndirs = \"/usr\"\n"
                   "[[target.directory]]\npath = \"/usr\"\n")
            .find("named twice") != std::string::npos);
  CHECK(loader.error("[target]\nvolume_server = 1\n").find("with two brackets") !=
        std::string::npos);
  CHECK(loader.error("[target]\ntrust_local_clients = 1\n").find("expected true or false") !=
        std::string::npos);
}

TEST_CASE("a directory or volume server of the flags replaces all of both of the file") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  loader.flags.volume_servers = {{"127.0.0.1:80", {"/usr"}}};
  loader.flags.idx_dir = "/";
  const auto config = loader.load(
      "[[target.directory]]\npath = \"/etc\"\n"
      "[[target.volume_server]]\nurl = \"a:1\"\ndirs = \"/var\"\n");
  REQUIRE(config);
  CHECK(config->target.directories.empty());
  REQUIRE(config->target.volume_servers.size() == 1);
  CHECK(config->target.volume_servers[0] ==
        kelp::TargetVolumeServer{"127.0.0.1:80", {"/usr"}, "/"});
  CHECK(origin(*config, "target.volume_server[0].url").origin == "--volume-server");
  loader.flags.volume_servers = {{"nowhere", {"/usr"}}};
  CHECK(loader.error("").find("--volume-server nowhere is not host:port") == 0);
}

TEST_CASE("directories that cannot be served are refused by name") {
  Loader loader;
  loader.flags.volume_dirs.clear();
  const auto entry = [](const std::string& path) {
    return "[[target.directory]]\npath = \"" + path + "\"\n";
  };
  const std::string data = loader.dir.path();
  CHECK(loader.error(entry("/nowhere/at/all"))
            .find("kelpd.toml:2: cannot use the directory "
                  "/nowhere/at/all") == 0);
  CHECK(loader.error(entry(loader.dir.write("file", "x"))).find("not a directory") !=
        std::string::npos);
  CHECK(loader.error(entry(data) + entry(data + "/.")).find("kelpd.toml:4: the directory ") == 0);
  REQUIRE(::symlink(data.c_str(), (loader.dir / "link").c_str()) == 0);
  CHECK(loader.error(entry(data) + entry(loader.dir / "link")).find("twice") != std::string::npos);
  CHECK(loader.error("[[target.directory]]\n") ==
        "kelpd.toml:1: [[target.directory]] has no path: add one");
  CHECK(loader.error("[target.directory]\npath = '/'\n").find("two brackets") != std::string::npos);
  CHECK(loader.error("[[target.directory]]\npaht = '/'\n").find("target.directory.path?") !=
        std::string::npos);
  CHECK(loader.error(entry(data) + "idx_dir = '/nowhere'\n").find("kelpd.toml:3:") == 0);
}

TEST_CASE("without --config the default file is used where it exists") {
  const TempDir dir;
  CommandLine flags;
  flags.volume_dirs = {dir.path()};
  REQUIRE(kelp::load_config(flags, dir / "none.toml"));
  const std::string file = dir.write("kelpd.toml", "[worker]\nops = 100\n");
  CHECK(kelp::load_config(flags, file)->worker.ops == 100);
  flags.config_file = dir / "none.toml";
  CHECK_FALSE(kelp::load_config(flags, file));
}

TEST_CASE("a file that may not be read is named") {
  if (::geteuid() == 0) {
    MESSAGE("skipped: root may read every file");
    return;
  }
  Loader loader;
  ::chmod(loader.dir.write("kelpd.toml", "").c_str(), 0);
  loader.flags.config_file = loader.dir / "kelpd.toml";
  CHECK(kelp::load_config(loader.flags, kNoFile).error().os_error == EACCES);
}

TEST_CASE("a list of users or groups holds ids the kernel knows, and nothing else") {
  Loader loader;
  CHECK(loader.error("[client]\nallow_uids = [-1]\n").find("list of ids, 0..4294967294") !=
        std::string::npos);
  CHECK(loader.error("[client]\nallow_uids = [4294967295]\n").find("list of ids") !=
        std::string::npos);
  CHECK(loader.error("[client]\nallow_gids = 100\n").find("like [1000]") != std::string::npos);
  CHECK(loader.error("[client]\nallow_gids = [\"kelp\"]\n").find("list of texts") !=
        std::string::npos);
  CHECK(loader.load("[client]\nallow_uids = []\n")->client.allow_uids.empty());
}
