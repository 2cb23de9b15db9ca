// What lies in the shared memory of one client, byte for byte. docs/ring.md draws it.
//
// The daemon creates two sealed memfds per client: the *ring segment* (a header page, then one
// block per ring) and the *data area* (buffers only). Little-endian, no pointers, no locks, no
// reference counts. Everything the other side can write is untrusted: sizes and offsets come from
// the attach reply and from private copies, never from the shared header.
#pragma once

#include <cstddef>
#include <cstdint>

namespace kelp {

inline constexpr std::uint16_t kAbiMajor = 1;
inline constexpr std::uint16_t kAbiMinor = 0;
inline constexpr std::uint64_t kSegmentMagic = 0x31474e49'504c454b;  // "KELPING1"
inline constexpr std::size_t kPageBytes = 4096;

/// Distance that keeps two writers' lines apart: two cache lines, since the prefetcher of x86
/// fetches them in pairs.
inline constexpr std::size_t kWriterDistance = 128;

/// Operation codes; those of kelp.h.
enum class OpCode : std::uint8_t { kRead = 0, kStat = 1, kNop = 2 };

/// Submission.flags: none are defined yet, and unknown ones are refused.
inline constexpr std::uint16_t kKnownSubmissionFlags = 0;

/// One request, 64 B. `sequence` is the slot's lap mark: index + 1 of the entry it holds.
struct Submission {
  std::uint32_t sequence;
  OpCode op;
  std::uint8_t reserved;
  std::uint16_t flags;
  std::uint64_t tag;
  std::uint64_t needle;
  std::uint32_t volume;
  std::uint32_t cookie;
  std::uint64_t offset_bytes;         // into the logical content
  std::uint64_t buffer_offset_bytes;  // into the data area
  std::uint32_t length_bytes;         // the buffer's capacity; never 0 but for kNop
  std::uint32_t timeout_us;           // from copy-out; 0: the daemon's longest
  std::uint64_t extra;                // 0, or 1 + data-area offset of a block of hints.h
};
static_assert(sizeof(Submission) == 64);
static_assert(offsetof(Submission, tag) == 8 && offsetof(Submission, offset_bytes) == 32);
static_assert(offsetof(Submission, length_bytes) == 48 && offsetof(Submission, extra) == 56);

/// One answer, 32 B. Flags, status and path lie as in kelp_completion: they are copied as one word.
struct Completion {
  std::uint32_t sequence;
  std::uint16_t flags;
  std::uint8_t status;
  std::uint8_t path;
  std::uint64_t tag;
  std::uint64_t total_bytes;
  std::uint32_t bytes;
  std::uint8_t attempts;
  std::uint8_t reserved[3];
};
static_assert(sizeof(Completion) == 32);
static_assert(offsetof(Completion, tag) == 8 && offsetof(Completion, bytes) == 24);

/// Completion.flags beyond those of kelp.h: the second and last word on a tag that was completed
/// with KELP_FLAG_BUFFER_HELD; nothing writes into its buffer any more.
inline constexpr std::uint16_t kFlagReleased = 0x8000;

/// Head of a ring block. Four lines, each with one writer (the wake flags have two, by exchange).
struct RingControl {
  // Written by the client.
  alignas(kWriterDistance) std::uint32_t completion_head;
  // Set by the client before it sleeps; exchanged to 0 by the daemon, which then wakes it.
  alignas(kWriterDistance) std::uint32_t client_sleeps;
  // Written by the worker.
  alignas(kWriterDistance) std::uint32_t submission_head;
  std::uint32_t state;      // RingState
  std::uint64_t heartbeat;  // goes up at least every kHeartbeatPeriodMs
  std::uint32_t cpu;        // where the worker runs, or ran before it fell asleep
  // Set by the worker before it sleeps; exchanged to 0 by the client, which then wakes it.
  alignas(kWriterDistance) std::uint32_t worker_sleeps;
};
static_assert(sizeof(RingControl) == 4 * kWriterDistance);

/// How often at least a worker moves the heartbeat of a ring, and how long a client lets it stand
/// still before it asks the kernel whether the daemon lives.
inline constexpr std::uint64_t kHeartbeatPeriodMs = 100;
inline constexpr std::uint64_t kHeartbeatDoubtMs = 500;

inline constexpr std::uint32_t kNoCpu = UINT32_MAX;

enum class RingState : std::uint32_t {
  kServing = 0,
  kDraining = 1,   // the daemon is stopping: what is in flight ends, nothing new is taken
  kCondemned = 2,  // the client broke the protocol; the daemon reads this ring no more
};

/// First page of the ring segment, written once by the daemon, for people with a debugger.
struct SegmentHeader {
  std::uint64_t magic;
  std::uint16_t abi_major;
  std::uint16_t abi_minor;
  std::uint32_t rings;
  std::uint32_t submission_entries;
  std::uint32_t completion_entries;
  std::uint64_t ring_bytes;
  std::uint64_t data_bytes;
};

/// Sizes of a segment, the same arithmetic on both sides. The counts are powers of two; there are
/// twice as many completion slots, since a request whose buffer is held is completed twice.
struct SegmentLayout {
  std::uint32_t rings = 0;
  std::uint32_t submission_entries = 0;
  std::uint32_t completion_entries = 0;

  constexpr std::size_t submissions_offset() const { return sizeof(RingControl); }
  constexpr std::size_t completions_offset() const {
    return submissions_offset() + submission_entries * sizeof(Submission);
  }
  constexpr std::size_t ring_bytes() const {
    const std::size_t used = completions_offset() + completion_entries * sizeof(Completion);
    return (used + kPageBytes - 1) / kPageBytes * kPageBytes;
  }
  constexpr std::size_t ring_offset(std::uint32_t ring) const {
    return kPageBytes + ring * ring_bytes();
  }
  constexpr std::size_t segment_bytes() const { return ring_offset(rings); }
};

inline constexpr std::uint32_t kMinRingEntries = 4;
inline constexpr std::uint32_t kMaxRingEntries = 65536;

}  // namespace kelp
