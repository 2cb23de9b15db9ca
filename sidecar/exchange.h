// One request and its answer, from the head that came in to the last byte that goes out. The
// sidecar's thread only. It outlives its connection where reads are still under way for it.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <string>

#include "shm_ring/kelp.h"
#include "sidecar/buffers.h"
#include "sidecar/options.h"

namespace kelp::sidecar {

using Clock = std::chrono::steady_clock;

/// A part of the body in a slab: first being read, then ready to be sent.
struct Piece {
  Slab* slab = nullptr;
  std::uint32_t bytes = 0;
  std::uint32_t sent = 0;
  bool reading = false;
  bool ready = false;
  bool last = false;       ///< of several
  bool unchecked = false;  ///< the last one, read and not yet looked at with the others
};

/// Aligned, so that the low bits of its address are free for a ring tag.
struct alignas(16) Exchange {
  enum class Kind : std::uint8_t { kRead, kRdmaRead, kPing, kBenchmark, kPage };
  enum class Stage : std::uint8_t {
    kNew,
    kStat,       ///< the stat alone: what it says decides what is read
    kFirst,      ///< stat and read together
    kAgain,      ///< the whole slice, now that its length is known
    kAnswering,  ///< the head is written; what follows is read as it is sent
    kNop,        ///< ping
    kRepeat,     ///< benchmark
  };

  // What was asked.
  Kind kind = Kind::kPage;
  bool head_only = false;
  bool http_1_0 = false;
  bool keep_alive = true;
  bool json = false;
  kelp_fid fid{};
  std::uint64_t offset = 0;
  std::uint64_t size = 0;  ///< 0: to the end
  std::string volume_server;
  std::string token;
  std::string range;
  std::string if_none_match;
  std::string if_modified_since;

  // How far it is.
  Stage stage = Stage::kNew;
  bool waits = false;           ///< in Reads' queue, for slabs or places in the ring
  bool orphan = false;          ///< its connection is gone
  bool hinted = false;          ///< the volume server that was named is asked
  std::uint32_t body_slab = 0;  ///< what a slab of it has to have room for, once that is known
  std::uint8_t tries = 0;       ///< times that stat and read did not fit each other
  std::uint32_t in_flight = 0;
  Clock::time_point arrived{};
  Clock::time_point deadline{};
  kelp_completion stat{};
  kelp_completion read{};
  kelp_stat about{};             ///< of the stat
  std::uint32_t connection = 0;  ///< its index

  // What goes out: the head, then text, or pieces of which `body_left` bytes are to be sent.
  bool answering = false;
  bool broken = false;  ///< the rest of the body cannot be had: the connection is cut
  std::array<char, 1536> head;
  std::uint32_t head_bytes = 0;
  std::uint32_t head_sent = 0;
  std::string text;
  std::size_t text_sent = 0;
  std::array<Piece, 2> pieces{};
  std::uint32_t sending = 0;  ///< which piece is sent, or waited for, now
  std::uint32_t last = 0;     ///< which one is the last, where there are several
  std::uint64_t body_left = 0;

  // The part of the needle that is answered with, once it is known.
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::uint64_t next_read = 0;    ///< of a body in pieces: where the next one begins
  std::uint64_t range_base = 0;   ///< of a 206: what its Content-Range counts from,
  std::uint64_t range_total = 0;  ///< and of how much
  bool partial = false;
  bool summed = false;    ///< in pieces and all of a plain needle: its checksum is compared
  std::uint32_t crc = 0;  ///< of the pieces that are sent

  // Of a benchmark.
  std::uint32_t iterations = 0;
  std::uint32_t done = 0;
  std::uint32_t ok = 0;
  std::uint32_t over_verbs = 0;
  std::uint32_t over_http = 0;
  std::uint64_t bytes_read = 0;

  bool all_sent() const noexcept {
    return answering && head_sent == head_bytes && text_sent == text.size() && body_left == 0;
  }
};

inline kelp_status status_of(const kelp_completion& done) noexcept {
  return static_cast<kelp_status>(done.status);
}
inline kelp_path path_of(const kelp_completion& done) noexcept {
  return static_cast<kelp_path>(done.path);
}

}  // namespace kelp::sidecar
