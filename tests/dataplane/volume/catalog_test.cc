#include "dataplane/volume/catalog.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "support/volume_opening.h"
#include "support/volume_writer.h"

using kelp::Catalog;
using kelp::NeedleId;
using kelp::VolumeId;
using kelp::VolumeState;
using kelp::test::TempDir;
using kelp::test::VolumeWriter;
using Kind = kelp::Catalog::Change::Kind;

namespace {

/// What a scan says of each volume: "open 7, gone 9".
std::string told(const std::vector<Catalog::Change>& changes) {
  std::vector<std::string> words;
  for (const Catalog::Change& change : changes) {
    const char* const kind = change.kind == Kind::kOpen      ? "open "
                             : change.kind == Kind::kUseHttp ? "http "
                                                             : "gone ";
    words.push_back(kind + std::to_string(static_cast<std::uint32_t>(change.key.id)));
  }
  std::ranges::sort(words);
  std::string all;
  for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
  return all;
}

void touch(const std::filesystem::path& path) {
  VolumeWriter::write_file(path, {});
}

void put_text(const std::filesystem::path& path, std::string_view text) {
  VolumeWriter::write_file(path, std::as_bytes(std::span(text)));
}

/// Opens as the loader does, and tells the catalog.
std::unique_ptr<kelp::Volume> open(Catalog& catalog, std::uint32_t id) {
  const auto attempt = catalog.begin_open({0, VolumeId{id}});
  if (attempt == nullptr) return nullptr;
  while (true) {
    switch (attempt->step()) {
      case kelp::VolumeOpen::Turn::kMore:
        continue;
      case kelp::VolumeOpen::Turn::kFailed:
        catalog.failed({0, VolumeId{id}}, attempt->failure());
        return nullptr;
      case kelp::VolumeOpen::Turn::kDone:
        break;
    }
    auto volume = attempt->take();
    catalog.opened({0, VolumeId{id}}, *volume);
    return volume;
  }
}

kelp::VolumeReport report_of(const Catalog& catalog, std::uint32_t id) {
  for (kelp::VolumeReport& report : catalog.reports()) {
    if (report.key.id == VolumeId{id}) return report;
  }
  FAIL("no report of volume " << id);
  return {};
}

}  // namespace

TEST_CASE("volumes are found once, by .dat, with collections of any name") {
  TempDir dir;
  VolumeWriter plain(dir.path(), {.id = 7});
  VolumeWriter named(dir.path(), {.id = 8, .collection = "pictures"});
  VolumeWriter odd(dir.path(), {.id = 9, .collection = "a_b_3"});
  touch(dir.path() / "10.idx");
  touch(dir.path() / "11.vif");
  touch(dir.path() / "12.dat.copying");
  touch(dir.path() / "013.dat");
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7, open 8, open 9");
  CHECK(catalog.scan().empty());
  CHECK(open(catalog, 9) != nullptr);
  const auto report = report_of(catalog, 9);
  CHECK(report.collection == "a_b_3");
  CHECK(report.state == VolumeState::kServing);
  CHECK(report.dat_bytes == 8);
  CHECK(report_of(catalog, 7).state == VolumeState::kLoading);
  CHECK(catalog.begin_open({0, VolumeId{10}}) == nullptr);
}

TEST_CASE("a volume that vanishes is gone, one that comes is opened") {
  TempDir dir;
  Catalog catalog({{dir.path(), ""}});
  CHECK(catalog.scan().empty());
  {
    VolumeWriter writer(dir.path(), {});
    CHECK(told(catalog.scan()) == "open 7");
    writer.unlink_all();
  }
  CHECK(told(catalog.scan()) == "gone 7");
  CHECK(catalog.reports().empty());
  CHECK(catalog.scan().empty());
}

TEST_CASE("the earlier directory wins, and the later one takes over when it is gone") {
  TempDir first;
  TempDir second;
  VolumeWriter winner(first.path(), {});
  VolumeWriter twin(second.path(), {});
  Catalog catalog({{first.path(), ""}, {second.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(report_of(catalog, 7).directory == first.path());
  winner.unlink_all();
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(report_of(catalog, 7).directory == second.path());
}

TEST_CASE("an .idx beside the .dat wins over the index directory's") {
  TempDir dir;
  TempDir indexes;
  VolumeWriter writer(dir.path(), {.idx_dir = indexes.path()});
  writer.put(1, "one");
  Catalog catalog({{dir.path(), indexes.path()}});
  CHECK(told(catalog.scan()) == "open 7");
  const auto far = open(catalog, 7);
  REQUIRE(far != nullptr);
  CHECK(far->find(NeedleId{1}));
  CHECK(catalog.scan().empty());

  std::filesystem::rename(indexes.path() / "7.idx", dir.path() / "7.idx");
  CHECK(told(catalog.scan()) == "open 7");
  const auto near = open(catalog, 7);
  REQUIRE(near != nullptr);
  CHECK(near->find(NeedleId{1}));
  CHECK(catalog.watched_directories().size() == 2);
}

TEST_CASE("an erasure-coded volume is the server's, beside a .dat it is ours") {
  TempDir dir;
  touch(dir.path() / "7.ecx");
  touch(dir.path() / "7.ec00");
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "http 7");
  CHECK(report_of(catalog, 7).state == VolumeState::kUseHttp);
  CHECK(catalog.begin_open({0, VolumeId{7}}) == nullptr);
  CHECK(catalog.scan().empty());
  {
    VolumeWriter writer(dir.path(), {});
    CHECK(told(catalog.scan()) == "open 7");
    CHECK(open(catalog, 7) != nullptr);
    writer.unlink_all();
  }
  CHECK(told(catalog.scan()) == "http 7");
}

TEST_CASE("shards tell an erasure-coded volume whose .ecx lies in the index directory") {
  TempDir dir;
  TempDir indexes;
  touch(indexes.path() / "7.ecx");
  touch(dir.path() / "7.ec13");
  touch(dir.path() / "8.ecj");
  Catalog catalog({{dir.path(), indexes.path()}});
  CHECK(told(catalog.scan()) == "http 7");
}

TEST_CASE("a .dat in a later directory wins over shards in an earlier one") {
  TempDir first;
  TempDir second;
  touch(first.path() / "7.ecx");
  VolumeWriter writer(second.path(), {});
  Catalog catalog({{first.path(), ""}, {second.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(open(catalog, 7) != nullptr);
}

TEST_CASE("replaced files are opened again, untouched and appended ones are not") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  writer.put(1, "one");
  Catalog catalog({{dir.path(), ""}});
  catalog.scan();
  const auto volume = open(catalog, 7);
  writer.put(2, "two");
  CHECK(catalog.scan().empty());
  writer.vacuum();
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(catalog.scan().empty());
}

TEST_CASE("what was opened is what counts as known, not what was listed") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  writer.put(1, "one");
  Catalog catalog({{dir.path(), ""}});
  catalog.scan();
  writer.vacuum();
  CHECK(open(catalog, 7) != nullptr);
  CHECK(catalog.scan().empty());
}

TEST_CASE("a volume refused is tried again with each scan until it opens") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  touch(writer.paths().copy_marker);
  Catalog catalog({{dir.path(), ""}});
  for (int i = 0; i < 3; ++i) {
    CHECK(told(catalog.scan()) == "open 7");
    CHECK(open(catalog, 7) == nullptr);
    CHECK(report_of(catalog, 7).state == VolumeState::kRefused);
    CHECK_FALSE(report_of(catalog, 7).reason.empty());
  }
  std::filesystem::remove(writer.paths().copy_marker);
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(open(catalog, 7) != nullptr);
  CHECK(report_of(catalog, 7).reason.empty());
  CHECK(catalog.scan().empty());
}

TEST_CASE("a volume under two collections is trouble, and neither of them is taken") {
  TempDir dir;
  VolumeWriter one(dir.path(), {.collection = "one"});
  VolumeWriter two(dir.path(), {.collection = "two"});
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "http 7");
  CHECK(report_of(catalog, 7).reason.find("two collections") != std::string::npos);
  REQUIRE(catalog.troubles().size() == 1);
  CHECK(catalog.troubles()[0].what.find("two collections") != std::string::npos);
  CHECK(catalog.scan().empty());
  std::filesystem::remove(two.paths().dat);
  CHECK(told(catalog.scan()) == "open 7");
}

TEST_CASE("a .vif whose data is in a remote tier is a volume, one left behind is none") {
  TempDir dir;
  put_text(dir.path() / "7.vif", R"({"files":[{"key":"k"}]})");
  put_text(dir.path() / "8.vif", R"({"version":3})");
  touch(dir.path() / "9.vif");
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "http 7");
  CHECK(report_of(catalog, 7).reason.find("remote tier") != std::string::npos);
  CHECK(catalog.begin_open({0, VolumeId{7}}) == nullptr);
  CHECK(catalog.scan().empty());
  VolumeWriter writer(dir.path(), {.id = 8});
  CHECK(told(catalog.scan()) == "open 8");
}

TEST_CASE("a .vif left behind by another collection does not disturb a volume") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  put_text(dir.path() / "old_7.vif", R"({"version":3})");
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7");
  put_text(dir.path() / "old_7.vif", R"({"files":[{"key":"k"}]})");
  CHECK(told(catalog.scan()) == "http 7");
}

TEST_CASE("two servers each have their own volume of one id, with an attestation of its own") {
  TempDir one;
  TempDir two;
  TempDir plain;
  VolumeWriter first(one.path(), {});
  VolumeWriter second(two.path(), {.collection = "c"});
  VolumeWriter third(plain.path(), {});
  const auto pulse = std::make_shared<kelp::ServerPulse>();
  Catalog catalog(
      {{one.path(), "", 1, 0, pulse}, {two.path(), "", 2, 3, pulse}, {plain.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7, open 7, open 7");
  for (const std::uint32_t server : {0u, 1u, 2u}) {
    const auto attempt = catalog.begin_open({server, VolumeId{7}});
    REQUIRE(attempt != nullptr);
    while (attempt->step() == kelp::VolumeOpen::Turn::kMore) {
    }
    const auto volume = attempt->take();
    catalog.opened({server, VolumeId{7}}, *volume);
    CHECK(volume->key() == kelp::VolumeKey{server, VolumeId{7}});
  }
  CHECK(catalog.attestations(0).empty());
  CHECK(catalog.attestations(1).size() == 1);
  REQUIRE(catalog.attestations(2).size() == 1);
  CHECK(catalog.attestations(2)[0]->facts().collection == "c");
  CHECK(catalog.attestations(2)[0]->facts().directory_rank == 3);
  catalog.reopening({2, VolumeId{7}});
  CHECK(catalog.attestations(2).empty());
}

TEST_CASE("ten thousand unrelated files are passed over") {
  TempDir dir;
  for (int i = 0; i < 10'000; ++i) touch(dir.path() / ("file" + std::to_string(i) + ".dat"));
  VolumeWriter writer(dir.path(), {});
  Catalog catalog({{dir.path(), ""}});
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(catalog.troubles().empty());
}

TEST_CASE("a missing directory is trouble, and serves once it is there") {
  TempDir dir;
  const auto late = dir.path() / "late";
  Catalog catalog({{late, ""}});
  CHECK(catalog.scan().empty());
  REQUIRE(catalog.troubles().size() == 1);
  CHECK(catalog.troubles()[0].path == late);
  std::filesystem::create_directory(late);
  VolumeWriter writer(late, {});
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(catalog.troubles().empty());
  std::filesystem::remove_all(late);
  CHECK(told(catalog.scan()) == "gone 7");
  CHECK(catalog.troubles().size() == 1);
}

TEST_CASE("a directory that may not be listed is trouble until it may") {
  if (::geteuid() == 0) {
    MESSAGE("skipped: root lists every directory");
    return;
  }
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  Catalog catalog({{dir.path(), ""}});
  ::chmod(dir.path().c_str(), 0);
  CHECK(catalog.scan().empty());
  CHECK(catalog.troubles().size() == 1);
  ::chmod(dir.path().c_str(), 0700);
  CHECK(told(catalog.scan()) == "open 7");
  CHECK(catalog.troubles().empty());
}

TEST_CASE("a file in place of a directory, and a file system that is not sound, are trouble") {
  TempDir dir;
  touch(dir.path() / "file");
  Catalog catalog({{dir.path() / "file", ""}, {"/proc", ""}});
  CHECK(catalog.scan().empty());
  REQUIRE(catalog.troubles().size() == 2);
  CHECK(catalog.troubles()[1].what.find("proc") != std::string::npos);
}

TEST_CASE("asked about volumes that are not there, a catalog does nothing") {
  TempDir dir;
  VolumeWriter writer(dir.path(), {});
  const auto volume = kelp::test::must_open(writer.paths());
  Catalog catalog({});
  CHECK(catalog.begin_open({0, VolumeId{1}}) == nullptr);
  catalog.opened({0, VolumeId{1}}, *volume);
  catalog.failed({0, VolumeId{1}}, {});
  catalog.reopening({0, VolumeId{1}});
  CHECK(catalog.reports().empty());
}
