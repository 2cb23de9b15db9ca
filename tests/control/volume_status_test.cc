#include "control/volume_status.h"

#include <doctest/doctest.h>

using kelp::AttestedFacts;
using kelp::parse_volume_status;
using kelp::VolumeId;
using kelp::VolumeServerStatus;
using kelp::why_not_attested;

namespace {

// As 4.48 answers, with what is not looked at left out.
constexpr const char* kEntry =
    R"({"Id": 7, "Collection": "c", "RemoteStorageName": "", "DiskId": 1, "CompactRevision": 2,
        "Version": 3, "Size": 5101, "ReadOnly": false})";

VolumeServerStatus listing(const std::string& entries) {
  const auto status = parse_volume_status(
      R"({"Version": "8000GB 4.48", "DiskStatuses": [{}, {}], "Volumes": [)" + entries + "]}");
  REQUIRE(status);
  return *status;
}

AttestedFacts here() {
  return {
      .key = {1, VolumeId{7}}, .collection = "c", .directory_rank = 1, .revision = 2, .version = 3};
}

bool says(const std::string& why, const std::string& part) {
  return why.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("a volume listed as it is here is attested") {
  const VolumeServerStatus status = listing(kEntry);
  CHECK(status.version == "8000GB 4.48");
  CHECK(status.disks == 2);
  CHECK(why_not_attested(here(), status, 2).empty());
}

TEST_CASE("a volume that is not listed, or listed otherwise, is not attested") {
  const VolumeServerStatus status = listing(kEntry);
  AttestedFacts facts = here();
  facts.key.id = VolumeId{8};
  CHECK(says(why_not_attested(facts, status, 2), "does not list"));
  facts = here();
  facts.collection = "";
  CHECK(says(why_not_attested(facts, status, 2), "collection \"c\""));
  facts = here();
  facts.revision = 1;
  CHECK(says(why_not_attested(facts, status, 2), "compaction revision 2"));
  facts = here();
  facts.version = 2;
  CHECK(says(why_not_attested(facts, status, 2), "needle version 3"));
  CHECK(says(why_not_attested(here(), listing(R"({"Id": 7, "Collection": "c", "CompactRevision": 2,
             "Version": 3, "RemoteStorageName": "s3.default"})"),
                              2),
             "remote tier"));
}

TEST_CASE("the directory is compared where the server tells of as many as are configured") {
  const VolumeServerStatus status = listing(kEntry);
  AttestedFacts facts = here();
  facts.directory_rank = 0;
  CHECK(says(why_not_attested(facts, status, 2), "directory 2 of its -dir"));
  CHECK(why_not_attested(facts, status, 1).empty());
}

TEST_CASE("of a volume listed twice the first directory counts") {
  const std::string first =
      R"({"Id": 7, "Collection": "c", "DiskId": 0, "CompactRevision": 9, "Version": 3})";
  for (const std::string& entries : {first + "," + kEntry, std::string(kEntry) + "," + first}) {
    CHECK(says(why_not_attested(here(), listing(entries), 2), "compaction revision 9"));
  }
}

TEST_CASE("an entry that lacks something, or holds nonsense, is no entry") {
  for (const char* entry :
       {"7", "null", "{}", R"({"Id": 7, "Collection": "c", "CompactRevision": 2})",
        R"({"Id": -7, "Collection": "c", "CompactRevision": 2, "Version": 3})",
        R"({"Id": 7, "Collection": 1, "CompactRevision": 2, "Version": 3})",
        R"({"Id": 7, "Collection": "c", "CompactRevision": 65536, "Version": 3})",
        R"({"Id": 4294967303, "Collection": "c", "CompactRevision": 2, "Version": 3})",
        R"({"Id": "7", "Collection": "c", "CompactRevision": 2, "Version": 3})"}) {
    CAPTURE(entry);
    CHECK(listing(entry).volumes.empty());
    CHECK(listing(std::string(entry) + "," + kEntry).volumes.size() == 1);
  }
}

TEST_CASE("a server without volumes lists none, and what is no list is an error") {
  const auto none = parse_volume_status(R"({"Volumes": null})");
  REQUIRE(none);
  CHECK(none->volumes.empty());
  CHECK(none->disks == 0);
  for (const char* text :
       {"", "[]", "7", "{}", R"({"Volumes": {}})", R"({"Volumes": [)", "<html>"}) {
    CAPTURE(text);
    CHECK_FALSE(parse_volume_status(text));
  }
}
