// A ring entry as the 64-bit words it is moved in.
//
// Written out field by field, so that entries are built and taken apart in registers: a bit_cast of
// the whole struct goes through the stack, some 25 instructions each way. The assertions below say
// that it gives the same words.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "shm_ring/layout.h"

namespace kelp {

template <class Entry>
inline constexpr std::size_t kEntryWords = sizeof(Entry) / sizeof(std::uint64_t);

template <class Entry>
using EntryWords = std::array<std::uint64_t, kEntryWords<Entry>>;

template <class Entry>
constexpr Entry from_words(const EntryWords<Entry>& words) noexcept;

constexpr std::uint64_t two_halves(std::uint32_t low, std::uint32_t high) noexcept {
  return std::uint64_t{high} << 32 | low;
}
constexpr std::uint32_t low_half(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word);
}
constexpr std::uint32_t high_half(std::uint64_t word) noexcept {
  return static_cast<std::uint32_t>(word >> 32);
}

constexpr EntryWords<Submission> to_words(const Submission& entry) noexcept {
  const std::uint32_t kind = static_cast<std::uint32_t>(entry.op) |
                             std::uint32_t{entry.reserved} << 8 | std::uint32_t{entry.flags} << 16;
  return {two_halves(entry.sequence, kind),
          entry.tag,
          entry.needle,
          two_halves(entry.volume, entry.cookie),
          entry.offset_bytes,
          entry.buffer_offset_bytes,
          two_halves(entry.length_bytes, entry.timeout_us),
          entry.extra};
}

template <>
constexpr Submission from_words<Submission>(const EntryWords<Submission>& words) noexcept {
  Submission entry{};
  const std::uint32_t kind = high_half(words[0]);
  entry.sequence = low_half(words[0]);
  entry.op = static_cast<OpCode>(kind & 0xff);
  entry.reserved = static_cast<std::uint8_t>(kind >> 8);
  entry.flags = static_cast<std::uint16_t>(kind >> 16);
  entry.tag = words[1];
  entry.needle = words[2];
  entry.volume = low_half(words[3]);
  entry.cookie = high_half(words[3]);
  entry.offset_bytes = words[4];
  entry.buffer_offset_bytes = words[5];
  entry.length_bytes = low_half(words[6]);
  entry.timeout_us = high_half(words[6]);
  entry.extra = words[7];
  return entry;
}

/// Flags, status and path, as they lie in a Completion and in a kelp_completion.
constexpr std::uint32_t verdict_of(const Completion& entry) noexcept {
  return entry.flags | std::uint32_t{entry.status} << 16 | std::uint32_t{entry.path} << 24;
}

constexpr EntryWords<Completion> to_words(const Completion& entry) noexcept {
  const std::uint32_t rest = entry.attempts | std::uint32_t{entry.reserved[0]} << 8 |
                             std::uint32_t{entry.reserved[1]} << 16 |
                             std::uint32_t{entry.reserved[2]} << 24;
  return {two_halves(entry.sequence, verdict_of(entry)), entry.tag, entry.total_bytes,
          two_halves(entry.bytes, rest)};
}

template <>
constexpr Completion from_words<Completion>(const EntryWords<Completion>& words) noexcept {
  Completion entry{};
  const std::uint32_t verdict = high_half(words[0]);
  const std::uint32_t rest = high_half(words[3]);
  entry.sequence = low_half(words[0]);
  entry.flags = static_cast<std::uint16_t>(verdict);
  entry.status = static_cast<std::uint8_t>(verdict >> 16);
  entry.path = static_cast<std::uint8_t>(verdict >> 24);
  entry.tag = words[1];
  entry.total_bytes = words[2];
  entry.bytes = low_half(words[3]);
  entry.attempts = static_cast<std::uint8_t>(rest);
  entry.reserved[0] = static_cast<std::uint8_t>(rest >> 8);
  entry.reserved[1] = static_cast<std::uint8_t>(rest >> 16);
  entry.reserved[2] = static_cast<std::uint8_t>(rest >> 24);
  return entry;
}

namespace entry_words_check {

/// Every byte of an entry another value: a field at the wrong place shows.
template <class Entry>
constexpr EntryWords<Entry> distinct_bytes() noexcept {
  EntryWords<Entry> words{};
  for (std::size_t i = 0; i < sizeof(Entry); ++i) {
    words[i / 8] |= std::uint64_t{i + 1} << (i % 8 * 8);
  }
  return words;
}

template <class Entry>
constexpr bool same_as_bit_cast() noexcept {
  const EntryWords<Entry> words = distinct_bytes<Entry>();
  return to_words(from_words<Entry>(words)) == words &&
         to_words(std::bit_cast<Entry>(words)) == words;
}

static_assert(std::endian::native == std::endian::little, "the lap mark is the low half of word 0");
static_assert(same_as_bit_cast<Submission>());
static_assert(same_as_bit_cast<Completion>());

}  // namespace entry_words_check

}  // namespace kelp
