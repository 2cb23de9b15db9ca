#include "tools/output_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include "control/temp_dir.h"

using kelp::OutputFile;
using kelp::test::read_text;
using kelp::test::TempDir;

TEST_CASE("nothing has the name until the file is committed") {
  const TempDir dir;
  {
    auto file = OutputFile::open(dir / "f");
    REQUIRE(file);
    REQUIRE(file->write("abc", 3));
    CHECK(::access((dir / "f").c_str(), F_OK) != 0);
    REQUIRE(file->commit());
    CHECK(read_text(dir / "f") == "abc");
  }
  CHECK(read_text(dir / "f") == "abc");
}

TEST_CASE("a file that is dropped is gone") {
  const TempDir dir;
  {
    auto file = OutputFile::open(dir / "f");
    REQUIRE(file);
    REQUIRE(file->write("abc", 3));
  }
  CHECK(std::filesystem::is_empty(dir.path()));
}

TEST_CASE("a link is followed, not replaced") {
  const TempDir dir;
  dir.write("real", "old");
  REQUIRE(::symlink("real", (dir / "link").c_str()) == 0);
  auto file = OutputFile::open(dir / "link");
  REQUIRE(file);
  REQUIRE(file->write("new", 3));
  REQUIRE(file->commit());
  CHECK(read_text(dir / "real") == "new");
  CHECK(std::filesystem::is_symlink(dir / "link"));
}
