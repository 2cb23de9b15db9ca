#include "sidecar/temp_files.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

#include "support/temp_dir.h"

using kelp::sidecar::TempFiles;
using Removal = TempFiles::Removal;
namespace fs = std::filesystem;

namespace {

std::vector<std::byte> bytes_of(std::size_t count) {
  return std::vector<std::byte>(count, std::byte{'k'});
}

std::string content(const std::string& path) {
  std::stringstream all;
  all << std::ifstream(path).rdbuf();
  return all.str();
}

std::size_t files_in(const fs::path& directory) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(directory), fs::directory_iterator()));
}

struct Scene {
  kelp::test::TempDir dir;
  std::string directory = (dir.path() / "hand-over").string();
  TempFiles::Clock::time_point now = TempFiles::Clock::now();

  TempFiles open(std::uint64_t most_bytes = 1 << 20) const {
    auto opened = TempFiles::open(directory, most_bytes);
    REQUIRE(opened);
    return std::move(*opened);
  }
};

}  // namespace

TEST_CASE("a temporary file holds the bytes, for us and our group alone, until it is removed") {
  const Scene scene;
  TempFiles files = scene.open();
  const std::string path = files.put(bytes_of(5000), scene.now);
  REQUIRE(!path.empty());
  CHECK(content(path) == std::string(5000, 'k'));
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0640);
  REQUIRE(::stat(scene.directory.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0750);
  CHECK(files.put(bytes_of(5000), scene.now) != path);
  CHECK(files.remove(path) == Removal::kRemoved);
  CHECK_FALSE(fs::exists(path));
  CHECK(files.remove(path) == Removal::kGone);
}

TEST_CASE("our group may read a temporary file whatever the umask is") {
  struct Umask {
    ~Umask() { ::umask(before); }
    mode_t before = ::umask(0077);  // as the unit of systemd has it
  } const umask;
  const Scene scene;
  TempFiles files = scene.open();
  const std::string path = files.put(bytes_of(10), scene.now);
  struct stat found {};
  REQUIRE(::stat(path.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0640);
  REQUIRE(::stat(scene.directory.c_str(), &found) == 0);
  CHECK((found.st_mode & 0777) == 0750);
}

TEST_CASE("nothing but names that were given is removed") {
  const Scene scene;
  TempFiles files = scene.open();
  const std::string path = files.put(bytes_of(10), scene.now);
  const std::string name = path.substr(scene.directory.size() + 1);
  std::ofstream(scene.dir.path() / name) << "not ours";
  fs::create_symlink(scene.dir.path(), scene.dir.path() / "link");
  for (const std::string& wrong :
       {std::string(), std::string("/"), scene.directory, scene.directory + "/", name,
        scene.directory + "/../" + name, scene.directory + "//" + name,
        scene.directory + "/./" + name, (scene.dir.path() / name).string(),
        (scene.dir.path() / "link" / "hand-over" / name).string(), path + "/", path + "0",
        path.substr(0, path.size() - 1), scene.directory + "/kelp-" + std::string(32, 'g'),
        path + std::string(1, '\0'), std::string("/etc/passwd")}) {
    CAPTURE(wrong);
    CHECK(files.remove(wrong) == Removal::kNotOurs);
  }
  CHECK(fs::exists(path));
  CHECK(fs::exists(scene.dir.path() / name));
  // What stands under such a name by somebody else's hand is not ours either.
  const std::string planted = scene.directory + "/kelp-" + std::string(32, '0');
  std::ofstream(planted.c_str()) << "planted";
  CHECK(files.remove(planted) == Removal::kGone);
  CHECK(fs::exists(planted));
}

TEST_CASE("temporary files expire, and never hold more than they may") {
  const Scene scene;
  TempFiles files = scene.open(1000);
  CHECK(files.put({}, scene.now).empty());
  CHECK(files.put(bytes_of(1001), scene.now).empty());
  const std::string first = files.put(bytes_of(600), scene.now);
  CHECK_FALSE(first.empty());
  CHECK(files.put(bytes_of(401), scene.now).empty());
  const std::string second = files.put(bytes_of(400), scene.now + std::chrono::seconds(1));
  CHECK_FALSE(second.empty());
  files.expire(scene.now + TempFiles::kLifetime - std::chrono::milliseconds(1));
  CHECK(files.bytes() == 1000);
  files.expire(scene.now + TempFiles::kLifetime);
  CHECK_FALSE(fs::exists(first));
  CHECK(fs::exists(second));
  CHECK(files.bytes() == 400);
  CHECK(files.remove(second) == Removal::kRemoved);
  files.expire(scene.now + 2 * TempFiles::kLifetime);
  CHECK(files.bytes() == 0);
  CHECK(files_in(scene.directory) == 0);
}

TEST_CASE(
    "what a crash left is removed at the start, at the end everything, and nothing else ever") {
  const Scene scene;
  {
    TempFiles files = scene.open();
    REQUIRE(!files.put(bytes_of(10), scene.now).empty());
    CHECK_FALSE(TempFiles::open(scene.directory, 1));  // it is taken
  }
  CHECK(files_in(scene.directory) == 0);
  std::ofstream(scene.directory + "/kelp-" + std::string(32, 'a')) << "left";
  std::ofstream(scene.directory + "/notes") << "somebody's";
  const TempFiles files = scene.open();
  CHECK(files_in(scene.directory) == 1);
  CHECK(content(scene.directory + "/notes") == "somebody's");
}

TEST_CASE("a directory that others could write to, or that is none, is not used") {
  const Scene scene;
  fs::create_directory(scene.directory);
  fs::permissions(scene.directory, fs::perms::all);
  const auto open = TempFiles::open(scene.directory, 1);
  REQUIRE_FALSE(open);
  CHECK(open.error().what.find("name one that kelpd makes for itself") != std::string::npos);
  std::ofstream(scene.dir.path() / "file") << "x";
  CHECK_FALSE(TempFiles::open((scene.dir.path() / "file").string(), 1));
  fs::create_symlink(scene.dir.path(), scene.dir.path() / "link");
  CHECK_FALSE(TempFiles::open((scene.dir.path() / "link").string(), 1));
  CHECK_FALSE(TempFiles::open((scene.dir.path() / "no" / "parent").string(), 1));
}
