// Which needle lies where: the live rows of an index.
//
// A hash table in segments. The top bits of a key's hash choose the segment, by way of a directory;
// within it, entries lie in up to seven units of 256 slots each, with linear probing. A segment
// that is full takes one unit more, a full one of seven units is split in two: growing never moves
// more than 1 600 needles at a time, needs no second copy, and leaves 72 % or more of the slots
// filled.
//
//   directory        segment                 unit
//   | 0 | -----> | used, units | ------> | 128 keys, 8 B each | 128 locations, 9 B each |
//   | 1 | --+--> | used, units | ------> ...
//   | 2 | --+      (a shallow segment has several places in the directory)
//
// docs/architecture.md holds it against library maps. Nothing here throws; memory that cannot be
// had is an answer of apply(). One thread at a time; the worker that owns the volume, or the loader
// before that.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <optional>

#include "dataplane/volume/index_row.h"
#include "dataplane/volume/needle.h"
#include "dataplane/volume/unit_pool.h"

namespace kelp {

struct NeedleLocation {
  std::uint64_t offset_bytes = 0;  ///< of the record in .dat
  std::int32_t body_bytes = 0;     ///< the header's Size; 0 is a live, empty needle
  friend bool operator==(const NeedleLocation&, const NeedleLocation&) = default;
};

class NeedleMap {
  /// Nine bytes, unaligned: offset in units of 8, size.
  using Packed = std::array<std::uint8_t, 9>;

 public:
  /// A row as small as it can be kept until it is applied.
  class Change {
   public:
    explicit Change(const IndexRow& row) noexcept : key_(unaligned(row.id)), value_(pack(row)) {}
    NeedleId id() const noexcept { return NeedleId{std::bit_cast<std::uint64_t>(key_)}; }

   private:
    friend class NeedleMap;
    using Key = std::array<std::byte, 8>;
    static Key unaligned(NeedleId id) noexcept {
      return std::bit_cast<Key>(static_cast<std::uint64_t>(id));
    }
    Key key_;
    Packed value_;
  };
  static_assert(sizeof(Change) == 17);

  /// `most_bytes` bounds the memory of the entries; tests run out of it on purpose.
  explicit NeedleMap(std::uint64_t most_bytes = UINT64_MAX) noexcept;
  ~NeedleMap();
  NeedleMap(NeedleMap&& other) noexcept;
  NeedleMap& operator=(NeedleMap&& other) noexcept;

  /// Applies one row: a put overwrites, a delete forgets. False: there is no memory for one more
  /// needle; the row was not applied, all others are as they were.
  bool apply(const IndexRow& row) noexcept;
  bool apply(const Change& change) noexcept;

  std::optional<NeedleLocation> find(NeedleId id) const noexcept;

  std::uint64_t size() const noexcept { return size_; }

  /// Says that about so many needles will come, so that fewer are moved on the way. A hint: takes
  /// little memory, and whatever it says anything may come. Does nothing once there are needles.
  void expect(std::uint64_t needles) noexcept;

  // For whoever applies many rows: first the one, some rows later the other, then apply(). Each
  // starts to load what the next step reads.
  void prefetch_segment(NeedleId id) const noexcept;
  void prefetch_slot(NeedleId id) const noexcept;

  /// Needles of one region lie near each other, and far from those of another.
  static constexpr std::uint32_t kRegions = 256;
  std::uint32_t region_of(NeedleId id) const noexcept {
    return static_cast<std::uint32_t>(hash(static_cast<std::uint64_t>(id)) >> 56);
  }

  /// Memory taken for entries, the part not yet used included.
  std::uint64_t memory_bytes() const noexcept;

 private:
  static constexpr std::uint32_t kUnitSlots = 128;
  static constexpr std::uint32_t kMostUnits = 15;  // a segment's header is two cache lines
  /// Of the slots of a unit, on average over its segment; 86 %.
  static constexpr std::uint32_t kUnitFill = 110;
  static constexpr std::uint32_t kMostDepth = 26;
  /// Of the directory expect() makes: 10^8 needles. What is promised may not be true.
  static constexpr std::uint32_t kMostExpectedDepth = 16;

  struct Unit;
  struct Segment;
  struct Entries;

  static Packed pack(const IndexRow& row) noexcept;
  static NeedleLocation unpack(const Packed& packed) noexcept;

  /// Mixes every bit of the key into every bit of the result; two different keys never collide.
  /// Source: the finalizer of MurmurHash3, with a secret.
  std::uint64_t hash(std::uint64_t key) const noexcept {
    key ^= seed_;
    key ^= key >> 33;
    key *= 0xff51afd7ed558ccd;
    key ^= key >> 33;
    key *= 0xc4ceb9fe1a85ec53;
    key ^= key >> 33;
    return key;
  }
  std::size_t place_of(std::uint64_t hash) const noexcept {
    return static_cast<std::size_t>((hash >> 1) >> (63 - depth_));
  }
  static std::uint32_t home_of(std::uint64_t hash, const Segment& segment) noexcept;

  bool put(std::uint64_t key, const Packed& value) noexcept;
  void erase(std::uint64_t key) noexcept;
  void close_gap(Segment& segment, std::uint32_t gap) noexcept;
  bool make_room(Segment& segment) noexcept;
  bool add_unit(Segment& segment) noexcept;
  bool split(Segment& segment) noexcept;
  bool double_directory() noexcept;
  void collect(const Segment& segment, Entries& entries) const noexcept;
  static void place(Segment& segment, const Entries& entries, std::uint32_t index) noexcept;
  bool start(std::uint32_t depth) noexcept;
  void swap(NeedleMap& other) noexcept;

  Segment** directory_ = nullptr;  // 2^depth_ places; null until the first needle
  std::uint32_t depth_ = 0;
  std::uint32_t expected_units_ = 1;  // of a segment, if all comes that expect() was told of
  std::uint64_t seed_ = 0;            // whoever chooses needle ids cannot choose where they fall
  std::uint64_t size_ = 0;
  std::optional<Packed> zero_;  // of needle 0: key 0 marks an empty slot
  UnitPool units_;
  UnitPool segments_;
};

}  // namespace kelp
