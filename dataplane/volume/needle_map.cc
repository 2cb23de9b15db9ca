#include "dataplane/volume/needle_map.h"

#include <sys/random.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "shm_ring/ticks.h"

namespace kelp {

struct NeedleMap::Unit {
  std::array<std::uint64_t, kUnitSlots> keys;  // 0: empty
  std::array<Packed, kUnitSlots> values;
};

struct NeedleMap::Segment {
  std::uint32_t used = 0;
  std::uint8_t units = 0;
  std::uint8_t depth = 0;  // bits of the hash all its keys share
  std::array<Unit*, kMostUnits> unit{};

  std::uint32_t slots() const noexcept { return units * kUnitSlots; }
  bool full() const noexcept { return used >= units * kUnitFill; }
  std::uint64_t& key(std::uint32_t slot) const noexcept {
    return unit[slot / kUnitSlots]->keys[slot % kUnitSlots];
  }
  Packed& value(std::uint32_t slot) const noexcept {
    return unit[slot / kUnitSlots]->values[slot % kUnitSlots];
  }
  std::uint32_t after(std::uint32_t slot) const noexcept {
    return slot + 1 == slots() ? 0 : slot + 1;
  }
  /// The key's slot, or the empty one that ends the search for it. There are units, and none of
  /// them is ever filled to the last slot of all.
  std::uint32_t search(std::uint64_t wanted, std::uint32_t slot) const noexcept {
    while (true) {
      const std::uint32_t first = slot - slot % kUnitSlots;
      const std::uint64_t* const keys = unit[slot / kUnitSlots]->keys.data();
      for (; slot < first + kUnitSlots; ++slot) {
        const std::uint64_t found = keys[slot - first];
        if (found == wanted || found == 0) return slot;
      }
      if (slot == slots()) slot = 0;
    }
  }
  void clear() noexcept {
    for (std::uint32_t i = 0; i < units; ++i) unit[i]->keys.fill(0);
    used = 0;
  }
};

/// A segment's content on its way to other slots.
struct NeedleMap::Entries {
  std::uint32_t count = 0;
  std::array<std::uint64_t, kMostUnits * kUnitSlots> hashes;
  std::array<std::uint64_t, kMostUnits * kUnitSlots> keys;
  std::array<Packed, kMostUnits * kUnitSlots> values;
};

NeedleMap::NeedleMap(std::uint64_t most_bytes) noexcept
    : units_(sizeof(Unit), most_bytes), segments_(sizeof(Segment), most_bytes) {
  static_assert(sizeof(Unit) % 64 == 0 && sizeof(Segment) == 128);
}

NeedleMap::~NeedleMap() {
  std::free(directory_);
}

NeedleMap::NeedleMap(NeedleMap&& other) noexcept : NeedleMap() {
  swap(other);
}

NeedleMap& NeedleMap::operator=(NeedleMap&& other) noexcept {
  swap(other);
  return *this;
}

void NeedleMap::swap(NeedleMap& other) noexcept {
  std::swap(directory_, other.directory_);
  std::swap(depth_, other.depth_);
  std::swap(expected_units_, other.expected_units_);
  std::swap(seed_, other.seed_);
  std::swap(size_, other.size_);
  std::swap(zero_, other.zero_);
  std::swap(units_, other.units_);
  std::swap(segments_, other.segments_);
}

NeedleMap::Packed NeedleMap::pack(const IndexRow& row) noexcept {
  const std::uint64_t units = row.offset_bytes / kNeedleAlignment;
  const auto low = static_cast<std::uint32_t>(units);
  Packed packed;
  std::memcpy(packed.data(), &low, 4);
  std::memcpy(packed.data() + 4, &row.size, 4);
  packed[8] = static_cast<std::uint8_t>(units >> 32);
  return packed;
}

NeedleLocation NeedleMap::unpack(const Packed& packed) noexcept {
  std::uint32_t low;
  NeedleLocation location;
  std::memcpy(&low, packed.data(), 4);
  std::memcpy(&location.body_bytes, packed.data() + 4, 4);
  location.offset_bytes = (low | (std::uint64_t{packed[8]} << 32)) * kNeedleAlignment;
  return location;
}

std::uint32_t NeedleMap::home_of(std::uint64_t hash, const Segment& segment) noexcept {
  return static_cast<std::uint32_t>(((hash & 0xffffffff) * segment.slots()) >> 32);
}

std::optional<NeedleLocation> NeedleMap::find(NeedleId id) const noexcept {
  const auto key = static_cast<std::uint64_t>(id);
  if (key == 0) return zero_ ? std::optional(unpack(*zero_)) : std::nullopt;
  if (directory_ == nullptr) return std::nullopt;
  const std::uint64_t hashed = hash(key);
  const Segment& segment = *directory_[place_of(hashed)];
  if (segment.used == 0) return std::nullopt;
  const std::uint32_t home = home_of(hashed, segment);
  __builtin_prefetch(&segment.value(home));
  const std::uint32_t slot = segment.search(key, home);
  if (segment.key(slot) == 0) return std::nullopt;
  return unpack(segment.value(slot));
}

void NeedleMap::prefetch_segment(NeedleId id) const noexcept {
  if (directory_ == nullptr) return;
  const Segment* const segment = directory_[place_of(hash(static_cast<std::uint64_t>(id)))];
  __builtin_prefetch(segment);
  __builtin_prefetch(&segment->unit[kMostUnits / 2]);
}

void NeedleMap::prefetch_slot(NeedleId id) const noexcept {
  if (directory_ == nullptr) return;
  const std::uint64_t hashed = hash(static_cast<std::uint64_t>(id));
  const Segment& segment = *directory_[place_of(hashed)];
  if (segment.units == 0) return;
  const std::uint32_t home = home_of(hashed, segment);
  __builtin_prefetch(&segment.key(home), 1);
  __builtin_prefetch(&segment.value(home), 1);
}

bool NeedleMap::apply(const IndexRow& row) noexcept {
  const auto key = static_cast<std::uint64_t>(row.id);
  if (row.is_delete()) {
    erase(key);
    return true;
  }
  return put(key, pack(row));
}

bool NeedleMap::apply(const Change& change) noexcept {
  const auto key = static_cast<std::uint64_t>(change.id());
  const NeedleLocation location = unpack(change.value_);
  if (location.offset_bytes != 0 && location.body_bytes >= 0) return put(key, change.value_);
  erase(key);
  return true;
}

bool NeedleMap::put(std::uint64_t key, const Packed& value) noexcept {
  if (key == 0) {
    if (!zero_) ++size_;
    zero_ = value;
    return true;
  }
  if (directory_ == nullptr && !start(0)) return false;
  const std::uint64_t hashed = hash(key);
  while (true) {
    Segment& segment = *directory_[place_of(hashed)];
    if (segment.units != 0) {
      const std::uint32_t slot = segment.search(key, home_of(hashed, segment));
      const bool known = segment.key(slot) == key;
      if (known || !segment.full()) {
        segment.key(slot) = key;
        segment.value(slot) = value;
        segment.used += known ? 0 : 1;
        size_ += known ? 0 : 1;
        return true;
      }
    }
    if (!make_room(segment)) return false;
  }
}

void NeedleMap::erase(std::uint64_t key) noexcept {
  if (key == 0) {
    if (zero_) --size_;
    zero_.reset();
    return;
  }
  if (directory_ == nullptr) return;
  const std::uint64_t hashed = hash(key);
  Segment& segment = *directory_[place_of(hashed)];
  if (segment.used == 0) return;
  const std::uint32_t slot = segment.search(key, home_of(hashed, segment));
  if (segment.key(slot) == 0) return;
  close_gap(segment, slot);
  --segment.used;
  --size_;
}

/// Empties a slot and moves up what could not be found past it any more.
void NeedleMap::close_gap(Segment& segment, std::uint32_t gap) noexcept {
  const std::uint32_t slots = segment.slots();
  const auto distance = [slots](std::uint32_t from, std::uint32_t to) {
    return to >= from ? to - from : to + slots - from;
  };
  for (std::uint32_t slot = segment.after(gap); segment.key(slot) != 0;
       slot = segment.after(slot)) {
    const std::uint32_t home = home_of(hash(segment.key(slot)), segment);
    if (distance(home, slot) < distance(gap, slot)) continue;
    segment.key(gap) = segment.key(slot);
    segment.value(gap) = segment.value(slot);
    gap = slot;
  }
  segment.key(gap) = 0;
}

void NeedleMap::collect(const Segment& segment, Entries& entries) const noexcept {
  entries.count = 0;
  for (std::uint32_t slot = 0; slot < segment.slots(); ++slot) {
    const std::uint64_t key = segment.key(slot);
    if (key == 0) continue;
    entries.hashes[entries.count] = hash(key);
    entries.keys[entries.count] = key;
    entries.values[entries.count] = segment.value(slot);
    ++entries.count;
  }
}

/// Where there is room, and the key is not.
void NeedleMap::place(Segment& segment, const Entries& entries, std::uint32_t index) noexcept {
  const std::uint32_t slot = segment.search(0, home_of(entries.hashes[index], segment));
  segment.key(slot) = entries.keys[index];
  segment.value(slot) = entries.values[index];
  ++segment.used;
}

bool NeedleMap::make_room(Segment& segment) noexcept {
  return segment.units < kMostUnits ? add_unit(segment) : split(segment);
}

bool NeedleMap::add_unit(Segment& segment) noexcept {
  // Not all that is expected at once: rows may be deletes, and units are never given back.
  const std::uint32_t wanted = segment.units == 0 ? std::max(expected_units_ * 3 / 4, 1U)
                                                  : std::max(expected_units_, segment.units + 1U);
  Entries entries;
  collect(segment, entries);
  const std::uint32_t before = segment.units;
  while (segment.units < wanted) {
    auto* const unit = static_cast<Unit*>(units_.take());
    if (unit == nullptr) break;
    segment.unit[segment.units++] = unit;
  }
  if (segment.units == before) return false;
  segment.clear();
  for (std::uint32_t i = 0; i < entries.count; ++i) place(segment, entries, i);
  return true;
}

/// Source: Fagin and others, "Extendible hashing", 1979.
bool NeedleMap::split(Segment& segment) noexcept {
  if (segment.depth == depth_ && !double_directory()) return false;
  Entries entries;
  collect(segment, entries);
  std::uint32_t upper_count = 0;
  const std::uint32_t bit = 63 - segment.depth;
  for (std::uint32_t i = 0; i < entries.count; ++i) {
    upper_count += static_cast<std::uint32_t>(entries.hashes[i] >> bit) & 1;
  }
  // Eight each, unless the keys fall oddly. Room for one more needle on either side.
  const std::uint32_t upper_units = upper_count / kUnitFill + 1;
  std::uint32_t lower_units = (entries.count - upper_count) / kUnitFill + 1;
  if (upper_units > kMostUnits || lower_units > kMostUnits) return false;
  lower_units = std::max(lower_units, kMostUnits - upper_units);

  void* const header = segments_.take();
  if (header == nullptr) return false;
  auto* const upper = new (header) Segment{};
  std::array<Unit*, 2 * kMostUnits> units{};
  std::copy_n(segment.unit.begin(), kMostUnits, units.begin());
  for (std::uint32_t have = kMostUnits; have < upper_units + lower_units; ++have) {
    units[have] = static_cast<Unit*>(units_.take());
    if (units[have] != nullptr) continue;
    while (have-- > kMostUnits) units_.give_back(units[have]);
    segments_.give_back(upper);
    return false;
  }
  ++segment.depth;
  upper->depth = segment.depth;
  std::copy_n(units.begin(), lower_units, segment.unit.begin());
  std::copy_n(units.begin() + lower_units, upper_units, upper->unit.begin());
  segment.units = static_cast<std::uint8_t>(lower_units);
  upper->units = static_cast<std::uint8_t>(upper_units);
  // The upper half of the places that led to the segment.
  const std::size_t places = std::size_t{1} << (depth_ - segment.depth);
  const std::uint64_t prefix = entries.hashes[0] >> 1 >> (63 - (segment.depth - 1));
  const std::size_t first = static_cast<std::size_t>(2 * prefix + 1) * places;
  std::fill_n(directory_ + first, places, upper);
  segment.clear();
  upper->clear();
  for (std::uint32_t i = 0; i < entries.count; ++i) {
    place((entries.hashes[i] >> bit & 1) != 0 ? *upper : segment, entries, i);
  }
  return true;
}

bool NeedleMap::double_directory() noexcept {
  if (depth_ == kMostDepth) return false;
  const std::size_t places = std::size_t{1} << depth_;
  auto** const wider = static_cast<Segment**>(std::malloc(2 * places * sizeof(Segment*)));
  if (wider == nullptr) return false;
  for (std::size_t place = 0; place < places; ++place) {
    wider[2 * place] = wider[2 * place + 1] = directory_[place];
  }
  std::free(std::exchange(directory_, wider));
  ++depth_;
  return true;
}

void NeedleMap::expect(std::uint64_t needles) noexcept {
  if (directory_ != nullptr) return;
  // A little below full, since segments differ: few are split at the end.
  constexpr std::uint64_t kSegmentNeedles = kMostUnits * kUnitFill * 19 / 20;
  std::uint32_t depth = 0;
  while (depth < kMostExpectedDepth && needles > kSegmentNeedles << depth) ++depth;
  expected_units_ = static_cast<std::uint32_t>(
      std::min<std::uint64_t>((needles >> depth) / kUnitFill + 1, kMostUnits));
  const std::uint64_t expected = std::uint64_t{expected_units_} << depth;
  units_.expect(expected * sizeof(Unit));
  segments_.expect(sizeof(Segment) << depth);
  start(depth);  // without memory for it, the first needle tries again with less
}

/// An empty directory of 2^depth segments without units.
bool NeedleMap::start(std::uint32_t depth) noexcept {
  const std::size_t places = std::size_t{1} << depth;
  auto** const directory = static_cast<Segment**>(std::malloc(places * sizeof(Segment*)));
  if (directory == nullptr) return false;
  for (std::size_t place = 0; place < places; ++place) {
    void* const header = segments_.take();
    if (header == nullptr) {
      while (place > 0) segments_.give_back(directory[--place]);
      std::free(directory);
      return false;
    }
    directory[place] = new (header) Segment{};
    directory[place]->depth = static_cast<std::uint8_t>(depth);
  }
  // Without randomness the clock has to do: it is about lists of ids made in advance.
  if (::getrandom(&seed_, sizeof seed_, GRND_NONBLOCK) != sizeof seed_) seed_ = ticks_now();
  directory_ = directory;
  depth_ = depth;
  return true;
}

std::uint64_t NeedleMap::memory_bytes() const noexcept {
  const std::uint64_t places = directory_ == nullptr ? 0 : std::uint64_t{1} << depth_;
  return units_.bytes() + segments_.bytes() + places * sizeof(Segment*);
}

}  // namespace kelp
