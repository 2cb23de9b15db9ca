// The sample file and the documentation are held against the table of keys.
#include <doctest/doctest.h>

#include "control/config.h"
#include "control/config_file.h"
#include "control/config_keys.h"
#include "control/temp_dir.h"

using kelp::ConfigKey;
using kelp::test::read_text;

namespace {

const std::string kSample = KELP_SOURCE_DIR "/config/kelpd.toml";
const std::string kDocs = KELP_SOURCE_DIR "/docs/configuration.md";

bool of_table(const ConfigKey& key) {
  return !kelp::repeated_table_of(key.name).empty();
}

std::string default_text(const ConfigKey& key) {
  return of_table(key) ? "" : "`" + key.show(kelp::Config{}, 0) + "`";
}

}  // namespace

TEST_CASE("the sample file parses, and its values are the defaults") {
  const auto file = kelp::read_config_file(kSample);
  REQUIRE_MESSAGE(file, (file ? "" : file.error().what));
  kelp::Config config;
  for (const kelp::ConfigAssignment& item : file->assignments) {
    CAPTURE(item.key);
    const ConfigKey* key = kelp::find_config_key(item.key);
    REQUIRE(key != nullptr);
    const auto problem = key->set(config, item.entry, item.value);
    CHECK_MESSAGE(!problem, problem.value_or(""));
    CHECK(key->show(config, 0) == key->show(kelp::Config{}, 0));
  }
}

TEST_CASE("the sample file names every key") {
  const auto file = kelp::read_config_file(kSample);
  REQUIRE(file);
  const std::string text = read_text(kSample);
  for (const ConfigKey& key : kelp::config_keys()) {
    CAPTURE(key.name);
    const std::string name(key.name.substr(key.name.rfind('.') + 1));
    if (of_table(key)) {
      CHECK(text.find("# " + name + " = ") != std::string::npos);
      continue;
    }
    bool assigned = false;
    for (const auto& item : file->assignments) assigned |= item.key == key.name;
    CHECK(assigned);
  }
}

TEST_CASE("docs/configuration.md has the row of every key") {
  const std::string text = read_text(kDocs);
  for (const ConfigKey& key : kelp::config_keys()) {
    const std::string row = "| `" + std::string(key.name) + "` | " + default_text(key) + " | " +
                            key.accepts + " | " + std::string(key.help) +
                            (key.reloadable ? " *Reloadable.*" : "") + " |";
    CHECK_MESSAGE(text.find(row) != std::string::npos, row);
  }
}
