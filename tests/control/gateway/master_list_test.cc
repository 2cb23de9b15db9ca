#include "control/gateway/master_list.h"

#include <doctest/doctest.h>

using kelp::MasterList;
using kelp::VolumeId;
using Order = std::vector<std::size_t>;

TEST_CASE("a look-up goes to the master's root, by the scheme that is written or configured") {
  const auto url = [](const std::string& master, bool https) {
    return MasterList({master}, https).lookup_url(0, VolumeId{4294967295U});
  };
  const std::string path = "/dir/lookup?volumeId=4294967295";
  CHECK(url("m:9333", false) == "http://m:9333" + path);
  CHECK(url("m:9333", true) == "https://m:9333" + path);
  CHECK(url("m:9333.19333", false) == "http://m:9333" + path);
  CHECK(url("http://m:9333/", true) == "http://m:9333" + path);
  CHECK(url("https://m:9333", false) == "https://m:9333" + path);
  CHECK(url("[::1]:9333", false) == "http://[::1]:9333" + path);
  CHECK(url("https://masters.example/weed/", false) == "https://masters.example/weed" + path);
}

TEST_CASE("a master that fails is asked last, one that is preferred first") {
  MasterList masters({"a:1", "b:1", "c:1"}, false);
  CHECK(masters.order() == Order{0, 1, 2});
  masters.failed(0, "refused");
  CHECK(masters.order() == Order{1, 2, 0});
  masters.prefer(2);
  CHECK(masters.order() == Order{2, 1, 0});
  masters.prefer(2);
  CHECK(masters.order() == Order{2, 1, 0});
  masters.failed(2, "refused");
  CHECK(masters.order() == Order{1, 0, 2});
}

TEST_CASE("the report of a master tells how often it was asked, failed, since when and why") {
  MasterList masters({"a:1"}, false);
  const auto& report = masters.reports().at(0);
  CHECK(report.url == "a:1");
  CHECK_FALSE(report.last_answer);
  masters.asked(0);
  masters.failed(0, "refused");
  const auto since = report.failing_since;
  CHECK(since);
  masters.asked(0);
  masters.failed(0, "timed out");
  CHECK(report.failing_since == since);
  CHECK(report.failure == "timed out");
  CHECK_FALSE(report.last_answer);
  masters.asked(0);
  masters.answered(0);
  CHECK(report.asked == 3);
  CHECK(report.failures == 2);
  CHECK(report.last_answer);
  CHECK_FALSE(report.failing_since);
  CHECK(report.failure.empty());
}
