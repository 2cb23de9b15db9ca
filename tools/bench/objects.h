// What is read: objects, the order in which they are read, and the bytes they should have. Built
// before the run and only looked at during it, by any number of threads.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "shm_ring/kelp.h"
#include "tools/bench/options.h"
#include "tools/failure.h"

namespace kelp::bench {

struct Object {
  kelp_fid fid{};
  std::string path{};       ///< "/3,01637037d6": what HTTP is asked for
  std::uint64_t total = 0;  ///< bytes, where they were asked for; else 0
  /// With --verify: the whole content; none where the object is known not to be readable.
  std::optional<std::vector<char>> expected{};

  std::string name() const { return path.substr(1); }
};

/// One read of an object.
struct Extent {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;  ///< the buffer's capacity
};

/// Reads one file id per line; empty lines and lines that start with '#' do not count.
Outcome<std::vector<Object>> load_objects(const std::string& path);

/// Asks the daemon for the needles of one volume: GET /volumes/ID/needles.
Outcome<std::vector<Object>> list_objects(const CommonOptions& common, std::uint32_t volume);

/// Whether `bytes` are what `extent` of the object holds. False for an object that should not be
/// readable.
bool as_expected(const Object& object, const Extent& extent, std::span<const char> bytes);

/// SplitMix64: a number per call, from a seed; for choosing objects, not for secrets.
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() noexcept {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Below `bound`, which is not 0.
  std::uint64_t below(std::uint64_t bound) noexcept {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(next()) * bound) >> 64);
  }
  /// From 0 to below 1.
  double fraction() noexcept { return static_cast<double>(next() >> 11) * 0x1p-53; }

 private:
  std::uint64_t state_;
};

/// What zipf needs to know about a number of objects; costs one pow() each, so it is shared.
struct ZipfTable {
  ZipfTable(std::size_t count, double theta);
  double zeta = 0;
  double alpha = 0;
  double eta = 0;
  double second = 0;  ///< up to here the second most popular one is meant
};

/// Which object comes next. One thread each.
class Order {
 public:
  /// `turn` of `turns` threads: a sequential order starts a share further on, the others have a
  /// seed of their own. `zipf` may be null for the other kinds.
  Order(const OrderPlan& plan, std::size_t count, const ZipfTable* zipf, std::uint32_t turn,
        std::uint32_t turns);

  std::size_t next() noexcept;
  Random& random() noexcept { return random_; }

 private:
  OrderKind kind_;
  std::size_t count_;
  const ZipfTable* zipf_;
  std::size_t at_;
  Random random_;
};

}  // namespace kelp::bench
