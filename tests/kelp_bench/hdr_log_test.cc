#include "tools/bench/hdr_log.h"

#include <doctest/doctest.h>

#include <memory>

namespace {

using kelp::Histogram;
using kelp::bench::hdr_log_head;
using kelp::bench::hdr_log_line;

TEST_CASE("a log begins with its version, its start and the names of the columns") {
  const std::string head = hdr_log_head(1441812279.474);
  CHECK(head.find("#[Histogram log format version 1.3]\n") != std::string::npos);
  CHECK(head.find(
            "#[StartTime: 1441812279.474 (seconds since epoch), Wed Sep 09 15:24:39 UTC 2015]\n") !=
        std::string::npos);
  CHECK(
      head.ends_with("\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_"
                     "Compressed_Histogram\"\n"));
}

TEST_CASE("a line has tag, start, length, the highest value in milliseconds and a V2 histogram") {
  const auto histogram = std::make_unique<Histogram>();
  histogram->record(2'500'000);
  const std::string line = hdr_log_line("kelp", 1.5, 0.25, *histogram);
  // The compressed cookie 0x1c849314 in base64 begins with these letters.
  CHECK(line.starts_with("Tag=kelp,1.500,0.250,2.500,HISTFA"));
  CHECK(line.ends_with("\n"));
}

}  // namespace
