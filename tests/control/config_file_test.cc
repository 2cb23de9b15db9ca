#include "control/config_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>

#include "control/temp_dir.h"

using kelp::ConfigFile;
using kelp::parse_config_text;
using kelp::read_config_file;
using kelp::test::TempDir;

TEST_CASE("assignments come flat, by line, however they are written") {
  const auto file = parse_config_text(
      "target.rescan_ms = 5\nworker = { spin_us = 7, cpus = [1, 2] }\n[daemon]\n\nrun_dir = '/x'\n",
      "f");
  REQUIRE(file);
  REQUIRE(file->assignments.size() == 4);
  CHECK(file->assignments[0].key == "target.rescan_ms");
  CHECK(std::get<std::int64_t>(file->assignments[0].value) == 5);
  CHECK(file->assignments[1].line == 2);
  CHECK(file->assignments[3].key == "daemon.run_dir");
  CHECK(file->assignments[3].line == 5);
  CHECK(file->assignments[3].text == "'/x'");
}

TEST_CASE("directories are counted and keep their lines") {
  const auto file = parse_config_text(
      "[[target.directory]]\npath='/a'\n\n[[target.directory]]\nidx_dir='/i'\n", "f");
  REQUIRE(file);
  CHECK(file->table_lines.at("target.directory") == std::vector<std::uint32_t>{1, 4});
  CHECK(file->assignments[1].entry == 1);
  CHECK(file->assignments[1].key == "target.directory.idx_dir");
}

TEST_CASE("a quoted key with dots does not pass for a nested one") {
  const auto file = parse_config_text("\"worker.spin_us\" = 5\n", "f");
  REQUIRE(file);
  CHECK(file->assignments.at(0).key == "\"worker.spin_us\"");
}

TEST_CASE("what is not TOML is an error with file and line") {
  const auto file = parse_config_text("[daemon]\nrun_dir = /x\n", "k.toml");
  REQUIRE_FALSE(file);
  CHECK(file.error().what.starts_with("k.toml:2: not TOML: "));
}

TEST_CASE("garbage is refused, never believed") {
  std::string bytes;
  for (int i = 0; i < 4096; ++i) bytes.push_back(static_cast<char>(i * 7919 >> 3));
  CHECK_FALSE(parse_config_text(bytes, "f"));
  CHECK_FALSE(parse_config_text(std::string("a = 1\0b", 7), "f"));
  CHECK_FALSE(parse_config_text("\xff\xfe[\0d", "f"));
  CHECK_FALSE(parse_config_text("a = 1\na = 2\n", "f"));
  CHECK_FALSE(parse_config_text("a = 99999999999999999999\n", "f"));
}

TEST_CASE("depth that would overrun the stack is refused before it is parsed") {
  std::string dots = "a";
  for (int i = 0; i < 300; ++i) dots += ".a";
  const auto dotted = parse_config_text(dots + " = 1\n", "f");
  REQUIRE_FALSE(dotted);
  CHECK(dotted.error().what.find("f:1: more than 32 dots") == 0);
  CHECK_FALSE(parse_config_text("a = " + std::string(1000, '['), "f"));
  CHECK_FALSE(parse_config_text("a = [\n" + std::string(5000, 'x'), "f"));
  std::string nested = "a = ";
  for (int i = 0; i < 10000; ++i) nested += "[\n";
  CHECK_FALSE(parse_config_text(nested, "f"));
  // As deep as the limits let through: 30 dots in each of 250 nested values.
  std::string deep = "a = ";
  for (int i = 0; i < 120; ++i) {
    deep += "{ a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a = [\n";
  }
  deep += "1";
  for (int i = 0; i < 120; ++i) deep += "]}";
  const auto deepest = parse_config_text(deep + "\n", "f");
  if (!deepest) MESSAGE(deepest.error().what);
}

TEST_CASE("only a regular file of a sensible size is read") {
  const TempDir dir;
  CHECK(read_config_file(dir / "none").error().os_error == ENOENT);
  CHECK(read_config_file(dir.path()).error().what.find("not a regular file") != std::string::npos);
  REQUIRE(::mkfifo((dir / "fifo").c_str(), 0600) == 0);
  CHECK(read_config_file(dir / "fifo").error().what.find("not a regular") != std::string::npos);
  CHECK(read_config_file("/dev/zero").error().what.find("not a regular") != std::string::npos);
  const std::string big = dir.write("big", std::string(10 << 20, '\n'));
  CHECK(read_config_file(big).error().what.find("larger than 256 KiB") != std::string::npos);
  CHECK(read_config_file(dir.write("empty", ""))->assignments.empty());
  CHECK(read_config_file(dir.write("fits", std::string(256 * 1024, '\n'))));
}
