#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "tools/run_kelpctl.h"
#include "tools/stand_in_kelp.h"

using kelp::test::contains;
using kelp::test::Ran;
using kelp::test::run;
using kelp::test::stand_in;
using kelp::test::StandIn;

TEST_CASE("stat lists what is known, aligned") {
  stand_in() = StandIn{};
  stand_in().content = std::string(2048, 'x');
  stand_in().name = "a.jpg";
  stand_in().mime = "image/jpeg";
  stand_in().stat_flags = KELP_STAT_COMPRESSED;
  const Ran ran = run({"stat", "3,01637037d6"});
  CHECK(ran.code == 0);
  CHECK(ran.out ==
        "file id   3,01637037d6\n"
        "size      2048 B (2.0 KiB)\n"
        "stored    2048 B (2.0 KiB), gzip\n"
        "crc32c    1234abcd\n"
        "modified  2023-11-14 22:13:20 UTC\n"
        "appended  2023-11-14 22:13:21 UTC\n"
        "ttl       3 h\n"
        "name      a.jpg\n"
        "mime      image/jpeg\n"
        "version   3\n"
        "path      local\n");
}

TEST_CASE("stat as JSON is one object with the pairs inside") {
  stand_in() = StandIn{};
  stand_in().pairs = R"({"Seaweed-Owner":"me"})";
  stand_in().name = "\xff\"";
  const Ran ran = run({"stat", "3,01637037d6", "--json"});
  const auto about = nlohmann::json::parse(ran.out);
  CHECK(about["pairs"]["Seaweed-Owner"] == "me");
  CHECK(about["crc32c"] == "1234abcd");
  CHECK(about["name"] == "\xef\xbf\xbd\"");
  stand_in().pairs = "{broken";
  CHECK(nlohmann::json::parse(run({"stat", "3,0", "--json"}).out)["pairs"] == "{broken");
}

TEST_CASE("a name cannot steer the terminal") {
  stand_in() = StandIn{};
  stand_in().name = "\x1b]0;owned\x07\xc2\x9b";
  const Ran ran = run({"stat", "3,01637037d6"});
  CHECK(contains(ran.out, "\\x1b]0;owned\\x07\\x9b\n"));
}

TEST_CASE("stat fails with the status of the needle") {
  stand_in() = StandIn{};
  stand_in().status = KELP_WRONG_COOKIE;
  CHECK(run({"stat", "3,01637037d6"}).code == 4);
  CHECK(run({"stat", "nonsense"}).code == 2);
}
