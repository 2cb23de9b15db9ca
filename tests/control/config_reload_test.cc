#include "control/config_reload.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "control/config_keys.h"
#include "control/temp_dir.h"

using kelp::Config;
using kelp::ConfigKey;
using kelp::ConfigReload;
using kelp::test::TempDir;

namespace {

struct Files {
  TempDir dir;
  Config load(const std::string& toml) {
    kelp::CommandLine flags;
    flags.config_file =
        dir.write("kelpd.toml", toml + "[[target.directory]]\npath = \"" + dir.path() + "\"\n");
    auto config = kelp::load_config(flags);
    REQUIRE_MESSAGE(config, (config ? "" : config.error().what));
    return *config;
  }
};

ConfigReload reload(Config& running, const Config& wanted) {
  auto done = kelp::apply_reload(running, wanted);
  REQUIRE_MESSAGE(done, (done ? "" : done.error().what));
  return *done;
}

const kelp::ConfigOrigin& item(const Config& config, std::string_view key) {
  return *std::find_if(config.origins.begin(), config.origins.end(),
                       [&](const auto& each) { return each.key == key; });
}

}  // namespace

TEST_CASE("a reload applies what may change and names what needs a restart") {
  Files files;
  Config running = files.load("[worker]\nspin_us = 1\nops = 64\n");
  const ConfigReload done = reload(running, files.load("[worker]\nspin_us = 2\nops = 128\n"));
  REQUIRE(done.applied.size() == 1);
  CHECK(done.applied[0].key == "worker.spin_us");
  CHECK(done.applied[0].from == "1");
  CHECK(done.applied[0].to == "2");
  REQUIRE(done.needs_restart.size() == 1);
  CHECK(done.needs_restart[0].key == "worker.ops");
  CHECK(running.worker.spin_us == 2);
  CHECK(running.worker.ops == 64);
  CHECK(item(running, "worker.ops").value == "64");
  CHECK(item(running, "worker.ops").after_restart == "128");
}

TEST_CASE("a file put back as it was needs no restart any more") {
  Files files;
  Config running = files.load("[worker]\nops = 64\n");
  reload(running, files.load("[worker]\nops = 128\n"));
  CHECK(reload(running, files.load("[worker]\nops = 64\n")).needs_restart.empty());
  CHECK(item(running, "worker.ops").after_restart.empty());
}

TEST_CASE("directories that come or go need a restart") {
  Files files;
  Config running = files.load("");
  const std::string more = "[[target.directory]]\npath = \"/\"\n";
  const ConfigReload added = reload(running, files.load(more));
  CHECK(added.needs_restart.size() == 3);  // the first is another, and the second is new
  CHECK(running.target.directories.size() == 1);
  Config two = files.load(more);
  const ConfigReload gone = reload(two, files.load(""));
  CHECK(two.target.directories.size() == 2);
  CHECK(std::any_of(gone.needs_restart.begin(), gone.needs_restart.end(), [](const auto& change) {
    return change.key == "target.directory[1].path" && change.to.empty();
  }));
}

TEST_CASE("every reloadable key is copied, and no key of a directory is one") {
  const Config defaults;
  for (const ConfigKey& key : kelp::config_keys()) {
    if (!key.reloadable) continue;
    CAPTURE(key.name);
    REQUIRE_FALSE(key.name.starts_with(kelp::kDirectoryTable));
    Config other;
    bool changed = false;
    const kelp::ConfigValue values[] = {
        std::int64_t{1},    std::int64_t{4},     std::int64_t{65536},         std::string("error"),
        std::string("off"), std::string("json"), std::vector<std::int64_t>{1}};
    for (const kelp::ConfigValue& value : values) {
      changed =
          changed || (!key.set(other, 0, value) && key.show(other, 0) != key.show(defaults, 0));
    }
    REQUIRE(changed);
    Config taken;
    key.copy(taken, other, 0);
    CHECK(key.show(taken, 0) == key.show(other, 0));
  }
}

TEST_CASE("limits are not reloaded to less than a sidecar that goes on until a restart needs") {
  Files files;
  Config running = files.load("[sidecar]\nlisten = \"127.0.0.1:8081\"\n");
  const std::uint64_t before = running.client.max_data_bytes;
  // Sound by itself: it names no sidecar.
  const Config wanted = files.load("[worker]\nspin_us = 2\n[client]\nmax_data_bytes = \"1 MiB\"\n");
  const auto refused = kelp::apply_reload(running, wanted);
  REQUIRE_FALSE(refused);
  CHECK(refused.error().what.find("kelpd.toml:4: client.max_data_bytes = 1 MiB is too little") !=
        std::string::npos);
  CHECK(refused.error().what.ends_with("goes on until kelpd is restarted"));
  CHECK(running.client.max_data_bytes == before);
  CHECK(running.worker.spin_us != 2);
  CHECK(item(running, "sidecar.listen").after_restart.empty());
}

TEST_CASE("nothing of the gateway is reloaded, and what changed needs a restart") {
  Files files;
  Config running = files.load("[gateway]\nmasters = [\"a:1\"]\nlookup_ttl_ms = 200\n");
  const ConfigReload done =
      reload(running, files.load("[gateway]\nmasters = [\"b:1\"]\nhttps = true\n"));
  CHECK(done.applied.empty());
  CHECK(done.needs_restart.size() == 3);
  CHECK(running.gateway.masters == std::vector<std::string>{"a:1"});
  CHECK(item(running, "gateway.masters").after_restart == "[\"b:1\"]");
  for (const ConfigKey& key : kelp::config_keys()) {
    if (key.name.starts_with("gateway.")) CHECK_FALSE(key.reloadable);
  }
}
