#include "dataplane/volume/volume_name.h"

#include <doctest/doctest.h>

using kelp::parse_volume_name;
using kelp::volume_base_name;
using kelp::VolumeId;

namespace {

void check_name(std::string_view name, std::string_view collection, std::uint32_t id,
                std::string_view extension) {
  CAPTURE(name);
  const auto parsed = parse_volume_name(name);
  REQUIRE(parsed);
  CHECK(parsed->collection == collection);
  CHECK(parsed->id == VolumeId{id});
  CHECK(parsed->extension == extension);
  CHECK(volume_base_name(parsed->collection, parsed->id) + std::string(extension) == name);
}

}  // namespace

TEST_CASE("a volume's file name splits at its last underscore and last dot") {
  check_name("7.dat", "", 7, ".dat");
  check_name("0.dat", "", 0, ".dat");
  check_name("4294967295.idx", "", 4294967295, ".idx");
  check_name("shells_6.idx", "shells", 6, ".idx");
  check_name("a_b_12.ecx", "a_b", 12, ".ecx");
  check_name("a_b_12.ec00", "a_b", 12, ".ec00");
  check_name("7_8.dat", "7", 8, ".dat");
  check_name("__8.dat", "_", 8, ".dat");
  check_name("v1.2_8.vif", "v1.2", 8, ".vif");
  check_name(
      "b\xc3\xbc"
      "cher_8.vif",
      "b\xc3\xbc"
      "cher",
      8, ".vif");
}

TEST_CASE("names that are no volume's file are passed over") {
  for (const char* name : {"",
                           ".",
                           "..",
                           ".dat",
                           ".ec00",
                           "7",
                           "7.",
                           "shells_6",
                           "shells_.dat",
                           "_7.dat",
                           "07.dat",
                           "00.dat",
                           "shells_06.dat",
                           "4294967296.dat",
                           "99999999999999999999.dat",
                           "-7.dat",
                           "+7.dat",
                           " 7.dat",
                           "7 .dat",
                           "7a.dat",
                           "0x7.dat",
                           "shells.dat",
                           "7.dat.copying",
                           "7.dat.tmp",
                           "shells_6.mirror.tmp",
                           "vol_dir.uuid",
                           "state.pb",
                           "a/7.dat",
                           "../7.dat",
                           "a/b_7.dat"}) {
    CAPTURE(name);
    CHECK_FALSE(parse_volume_name(name));
  }
  CHECK_FALSE(parse_volume_name(std::string_view("a\0_7.dat", 8)));
  CHECK_FALSE(parse_volume_name(std::string(1 << 16, '1') + ".dat"));
}

TEST_CASE("the base name of the default collection is the bare volume") {
  CHECK(volume_base_name("", VolumeId{7}) == "7");
  CHECK(volume_base_name("shells", VolumeId{6}) == "shells_6");
}
