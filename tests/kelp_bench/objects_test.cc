#include "tools/bench/objects.h"

#include <doctest/doctest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tools/bench/options.h"

namespace {

using namespace kelp::bench;

std::vector<std::size_t> counts_of(const OrderPlan& plan, std::size_t objects, int draws) {
  const ZipfTable zipf(objects, plan.theta);
  Order order(plan, objects, &zipf, 0, 1);
  std::vector<std::size_t> counts(objects);
  for (int i = 0; i < draws; ++i) ++counts.at(order.next());
  return counts;
}

TEST_CASE("a sequential order goes round, and each thread starts a share further on") {
  const OrderPlan plan{.kind = OrderKind::kSequential};
  Order first(plan, 6, nullptr, 0, 2), second(plan, 6, nullptr, 1, 2);
  for (std::size_t i = 0; i < 13; ++i) {
    CHECK(first.next() == i % 6);
    CHECK(second.next() == (i + 3) % 6);
  }
}

TEST_CASE("a random order reaches every object about equally often") {
  for (const std::size_t count : counts_of({.kind = OrderKind::kRandom}, 50, 50'000)) {
    CHECK(count > 800);
    CHECK(count < 1200);
  }
}

TEST_CASE("the same seed gives the same order, and another seed another one") {
  Order one({.seed = 5}, 1000, nullptr, 0, 1), same({.seed = 5}, 1000, nullptr, 0, 1),
      other({.seed = 6}, 1000, nullptr, 0, 1);
  std::size_t differences = 0;
  for (int i = 0; i < 100; ++i) {
    const std::size_t at = one.next();
    CHECK(at == same.next());
    if (at != other.next()) ++differences;
  }
  CHECK(differences > 90);
}

TEST_CASE("zipf draws the objects as often as its law says") {
  constexpr double kTheta = 0.9;
  constexpr int kDraws = 400'000;
  const ZipfTable table(1000, kTheta);
  const auto counts = counts_of({.kind = OrderKind::kZipf, .theta = kTheta}, 1000, kDraws);
  const auto expected = [&](std::size_t rank) {
    return kDraws / table.zeta / std::pow(static_cast<double>(rank + 1), kTheta);
  };
  for (const std::size_t rank : {0u, 1u}) {
    CHECK(static_cast<double>(counts[rank]) == doctest::Approx(expected(rank)).epsilon(0.03));
  }
  // The approximation of Gray et al. is good over many ranks together.
  double drawn = 0, due = 0;
  for (std::size_t rank = 2; rank < 100; ++rank) {
    drawn += static_cast<double>(counts[rank]);
    due += expected(rank);
  }
  CHECK(drawn == doctest::Approx(due).epsilon(0.1));
}

TEST_CASE("zipf of one and of two objects stays within them") {
  for (const std::size_t objects : {1u, 2u}) {
    std::size_t sum = 0;
    for (const std::size_t count : counts_of({.kind = OrderKind::kZipf}, objects, 1000))
      sum += count;
    CHECK(sum == 1000);
  }
}

TEST_CASE("bytes are as expected only if they are the extent's, all of them and no more") {
  Object object;
  object.expected = std::vector<char>{'a', 'b', 'c', 'd'};
  const auto fits = [&](std::uint64_t offset, std::uint32_t length, const std::string& bytes) {
    return as_expected(object, {offset, length}, bytes);
  };
  CHECK(fits(0, 100, "abcd"));
  CHECK(fits(1, 2, "bc"));
  CHECK(fits(4, 2, ""));
  CHECK_FALSE(fits(0, 100, "abc"));
  CHECK_FALSE(fits(0, 100, "abcde"));
  CHECK_FALSE(fits(0, 4, "abcx"));
  CHECK_FALSE(fits(1, 2, "ab"));
  CHECK_FALSE(fits(5, 2, ""));
  object.expected.reset();
  CHECK_FALSE(fits(0, 100, ""));
}

TEST_CASE("options that exclude each other are named") {
  Options options;
  CHECK(contradiction(options).find("--fids") != std::string::npos);
  options.fids = "x";
  CHECK(contradiction(options).empty());
  options.batch = 2;
  CHECK(contradiction(options).find("--batch") != std::string::npos);
  options.depth = 2;
  options.size = 1;
  options.range.length = 1;
  CHECK(contradiction(options).find("--range") != std::string::npos);
}

}  // namespace
