#include "dataplane/volume/index_row.h"

#include <doctest/doctest.h>

#include "support/hex_bytes.h"

using kelp::IndexRow;
using kelp::NeedleId;
using kelp::OffsetWidth;

namespace {

IndexRow parse(const char* hex, OffsetWidth width) {
  const auto bytes = kelp::test::hex_bytes(hex);
  REQUIRE(bytes.size() == kelp::row_bytes(width));
  return kelp::parse_index_row(bytes.data(), width);
}

}  // namespace

TEST_CASE("rows are 16 or 17 bytes and an unknown width has none") {
  CHECK(kelp::row_bytes(OffsetWidth::kFour) == 16);
  CHECK(kelp::row_bytes(OffsetWidth::kFive) == 17);
  CHECK(kelp::row_bytes(OffsetWidth::kUnknown) == 0);
}

TEST_CASE("the golden rows decode in both widths") {
  const IndexRow first{NeedleId{1}, 8, 22};
  CHECK(parse("0000000000000001 00000001 00000016", OffsetWidth::kFour) == first);
  CHECK(parse("0000000000000001 00000001 00 00000016", OffsetWidth::kFive) == first);

  const IndexRow tombstone{NeedleId{1}, 64, -1};
  CHECK(parse("0000000000000001 00000008 ffffffff", OffsetWidth::kFour) == tombstone);
  CHECK(parse("0000000000000001 00000008 00 ffffffff", OffsetWidth::kFive) == tombstone);
}

TEST_CASE("the high byte of a 5-byte offset comes last, and a 4-byte one wraps at 32 GiB") {
  constexpr std::uint64_t k32GiB = std::uint64_t{32} << 30;
  CHECK(parse("0000000000001234 00000001 00000064", OffsetWidth::kFour) ==
        IndexRow{NeedleId{0x1234}, 8, 100});
  CHECK(parse("0000000000001234 00000001 01 00000064", OffsetWidth::kFive) ==
        IndexRow{NeedleId{0x1234}, k32GiB + 8, 100});
  CHECK(parse("ffffffffffffffff ffffffff ff 7fffffff", OffsetWidth::kFive) ==
        IndexRow{NeedleId{UINT64_MAX}, 256 * k32GiB - 8, INT32_MAX});
}

TEST_CASE("a row deletes if its offset is 0 or its size negative, and size 0 alone is live") {
  CHECK(IndexRow{NeedleId{1}, 0, 22}.is_delete());
  CHECK(IndexRow{NeedleId{1}, 0, 0}.is_delete());
  CHECK(IndexRow{NeedleId{1}, 0, -1}.is_delete());
  CHECK(IndexRow{NeedleId{1}, 8, -1}.is_delete());
  CHECK(IndexRow{NeedleId{1}, 8, -22}.is_delete());
  CHECK(IndexRow{NeedleId{1}, 8, INT32_MIN}.is_delete());
  CHECK_FALSE(IndexRow{NeedleId{1}, 8, 0}.is_delete());
  CHECK_FALSE(IndexRow{NeedleId{0}, 8, 22}.is_delete());
}
