// Wire v1: what two kelpds say to each other, byte for byte. docs/wire.md draws every frame.
//
// Everything is little-endian. A frame is at most 512 bytes; the payload of an answer follows its
// frame on a stream, or went ahead by RDMA. Each frame carries a CRC-32C of itself: a bit that
// flips on the way costs the connection, and never an answer.
//
// Pure functions, any thread.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace kelp::wire {

static_assert(std::endian::native == std::endian::little, "frames are copied as they are");

inline constexpr std::uint16_t kOldestVersion = 1;
inline constexpr std::uint16_t kNewestVersion = 1;
inline constexpr std::uint16_t kTcpPort = 18516;
inline constexpr std::size_t kMostFrameBytes = 512;
inline constexpr std::uint32_t kMostSliceBytes = 1 << 20;  ///< of one answer's payload
inline constexpr std::uint16_t kMostSlots = 1024;
inline constexpr std::uint16_t kRdmaPort = 18515;
inline constexpr std::uint64_t kRdmaMagic = 0x314d'4452'504c'454bULL;  // "KELPRDM1"
inline constexpr std::uint64_t kMagic = 0x3152'4957'504c'454bULL;      // "KELPWIR1"

enum class FrameKind : std::uint8_t {
  // Before a connection is one:
  kHello = 1,      ///< gateway: who I am, what I would like
  kChallenge = 2,  ///< target: prove it
  kProof = 3,      ///< gateway
  kWelcome = 4,    ///< target: my proof, and your credits
  kRefused = 5,    ///< either, and the end
  // Afterwards:
  kRequest = 16,  ///< gateway: read this into slot s
  kAnswer = 17,   ///< target: exactly one for each request
  kCancel = 18,   ///< gateway: nobody waits for slot s; answer soon
  kPing = 19,     ///< either, when nothing was heard for long
  kPong = 20,     ///< its answer
  kDrain = 21,    ///< target: I end soon; what is under way is answered, ask nothing new
};

/// At the start of every frame.
struct FrameHeader {
  std::uint16_t bytes = 0;  ///< of the whole frame
  FrameKind kind{};
  std::uint8_t reserved = 0;
  std::uint32_t check = 0;  ///< CRC-32C of the frame, with this field as 0
};
static_assert(sizeof(FrameHeader) == 8);

enum class Role : std::uint8_t { kGateway = 1, kTarget = 2 };

inline constexpr std::uint16_t kAnyWorker = 0xffff;
using Nonce = std::array<std::uint8_t, 32>;
using Mac = std::array<std::uint8_t, 32>;
using RdmaAddress = std::array<std::uint8_t, 16>;

struct Hello {
  FrameHeader header;
  std::uint64_t magic = kMagic;
  std::uint16_t min_version = kOldestVersion;
  std::uint16_t max_version = kNewestVersion;
  Role role = Role::kGateway;
  std::uint8_t reserved = 0;
  std::uint16_t gateway_worker = 0;          ///< whose requests these will be
  std::uint16_t target_worker = kAnyWorker;  ///< who should answer them
  std::uint16_t slots = 0;                   ///< as many requests at once as it would like
  std::uint32_t key_id = 0;                  ///< 0: no key
  Nonce nonce{};
  std::array<char, 64> node{};  ///< what it calls itself; untrusted
};
static_assert(sizeof(Hello) == 128);

struct Challenge {
  FrameHeader header;
  std::uint16_t version = 0;  ///< the one to be spoken
  std::uint16_t reserved = 0;
  std::uint32_t reserved2 = 0;
  Nonce nonce{};
};
static_assert(sizeof(Challenge) == 48);

struct Proof {
  FrameHeader header;
  Mac mac{};  ///< HMAC-SHA-256(key, "kelp1-gw" | Hello | Challenge); zeroes without a key
};
static_assert(sizeof(Proof) == 40);

struct Welcome {
  FrameHeader header;
  std::uint16_t slots = 0;      ///< the credits: requests that may be unanswered at once
  std::uint16_t workers = 1;    ///< of the target; a volume is worker (volume mod workers)'s
  std::uint16_t worker = 0;     ///< the one behind this connection
  std::uint16_t rdma_port = 0;  ///< where it can be reached by RDMA as well; 0: nowhere
  std::uint32_t max_slice_bytes = 0;
  std::uint32_t reserved = 0;
  RdmaAddress rdma_address{};  ///< IPv6, or IPv4 in it; zeroes: the address of this connection
  Mac mac{};  ///< HMAC-SHA-256(key, "kelp1-tgt" | Hello | Challenge | Welcome up to here)
};
static_assert(sizeof(Welcome) == 72 && offsetof(Welcome, mac) == 40);

enum class RefusalCode : std::uint16_t {
  kVersion = 1,   ///< no version in common
  kKey = 2,       ///< unknown key, wrong proof, or none where one is wanted
  kProtocol = 3,  ///< not a frame that could come now
  kFull = 4,      ///< no place for another connection
  kDraining = 5,  ///< it ends soon
};

struct Refused {
  FrameHeader header;
  RefusalCode code{};
  std::uint16_t reserved = 0;
  std::array<char, 116> message{};  ///< one sentence, untrusted
};
static_assert(sizeof(Refused) == 128);

/// What goes with the request for an RDMA connection, before any frame.
struct RdmaHello {
  std::uint64_t magic = kRdmaMagic;
  std::uint16_t min_version = kOldestVersion;
  std::uint16_t max_version = kNewestVersion;
  std::uint16_t gateway_worker = 0;
  std::uint16_t target_worker = kAnyWorker;
  std::uint16_t slots = 0;  ///< as many as the gateway would like
  std::uint16_t reserved = 0;
};
static_assert(sizeof(RdmaHello) == 24);

/// And with its refusal.
struct RdmaRefusal {
  std::uint64_t magic = kRdmaMagic;
  RefusalCode code{};
  std::array<char, 86> message{};  ///< one sentence, untrusted
};
static_assert(sizeof(RdmaRefusal) == 96);

enum class RequestKind : std::uint8_t { kRead = 0, kStat = 1 };

/// A token of up to kMostTokenBytes may follow.
struct Request {
  FrameHeader header;
  std::uint16_t slot = 0;
  std::uint8_t generation = 0;  ///< of the slot: goes up with each request in it
  RequestKind kind{};
  std::uint32_t volume = 0;
  std::uint64_t needle = 0;
  std::uint64_t offset_bytes = 0;
  std::uint32_t cookie = 0;
  std::uint32_t length_bytes = 0;  ///< of the buffer: 1 to the slice the target allows
  std::uint32_t timeout_us = 0;    ///< what is left of the deadline
  std::uint32_t rkey = 0;          ///< 0 where payload follows its answer
  std::uint64_t remote_address = 0;
  std::uint16_t token_bytes = 0;
  std::uint16_t reserved = 0;
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(Request) == 64);
inline constexpr std::size_t kMostTokenBytes = kMostFrameBytes - sizeof(Request);

struct Answer {
  FrameHeader header;
  std::uint16_t slot = 0;
  std::uint8_t generation = 0;
  std::uint8_t status = 0;  ///< kelp_status
  std::uint16_t flags = 0;  ///< KELP_FLAG_*
  std::uint16_t reserved = 0;
  std::uint32_t bytes = 0;        ///< of payload, that follows on a stream; 0 unless OK
  std::uint32_t crc32c = 0;       ///< of the payload
  std::uint64_t total_bytes = 0;  ///< of the needle
  std::uint64_t source = 0;       ///< slices of one read must agree in it: the record they are of
};
static_assert(sizeof(Answer) == 40);

struct Cancel {
  FrameHeader header;
  std::uint16_t slot = 0;
  std::uint8_t generation = 0;
  std::uint8_t reserved = 0;
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(Cancel) == 16);

/// Ping and Pong.
struct Echo {
  FrameHeader header;
  std::uint64_t value = 0;
};
static_assert(sizeof(Echo) == 16);

struct Drain {
  FrameHeader header;
};
static_assert(sizeof(Drain) == 8);

/// CRC-32C of `frame` as its header should carry it. At least a header long.
std::uint32_t frame_check(std::span<const std::byte> frame) noexcept;

/// Fills in the header of `frame`, of which `bytes` count: the struct, or what follows it too.
void seal(std::span<std::byte> frame, FrameKind kind) noexcept;
template <class Frame>
requires requires(Frame& frame) {
  frame.header.check;
}
void seal(Frame& frame, FrameKind kind) noexcept {
  seal(std::as_writable_bytes(std::span(&frame, 1)), kind);
}

/// What is at the front of a stream.
enum class Peek : std::uint8_t {
  kMore,    ///< no whole frame yet
  kFrame,   ///< one of `bytes`
  kBroken,  ///< no frame: the connection is of no use any more
};
struct Peeked {
  Peek state = Peek::kMore;
  FrameKind kind{};
  std::uint16_t bytes = 0;
};
/// Judges length, kind, reserved bytes and check of the frame at the front of `stream`.
Peeked peek_frame(std::span<const std::byte> stream) noexcept;

/// The least a frame of `kind` has; 0: there is no such kind.
std::size_t frame_bytes(FrameKind kind) noexcept;

/// A copy of a frame that peek_frame() found to be of that kind.
template <class Frame>
Frame copy_frame(std::span<const std::byte> frame) noexcept {
  Frame copy;
  std::memcpy(&copy, frame.data(), sizeof copy);
  return copy;
}

/// A request as a frame, with its token. Empty: the token is too long.
std::span<const std::byte> write_request(Request request, std::string_view token,
                                         std::span<std::byte, kMostFrameBytes> room) noexcept;
/// Judges a request's fields against what was granted; nullopt: the peer broke the protocol.
struct ReadRequestFrame {
  Request request;
  std::string_view token;  ///< inside `frame`
};
std::optional<ReadRequestFrame> read_request(std::span<const std::byte> frame, std::uint16_t slots,
                                             std::uint32_t max_slice_bytes) noexcept;
/// The same of an answer: status is one, bytes only with OK, no more than `most_bytes`.
std::optional<Answer> read_answer(std::span<const std::byte> frame, std::uint16_t slots) noexcept;

/// An answer in the 32 bits that go with an RDMA write: slot, generation, status. nullopt: it says
/// more than that, and goes as a frame. What need not be said: a whole needle, of the bytes that
/// were written, whose checksum was verified.
std::optional<std::uint32_t> immediate_of(const Answer& answer) noexcept;
/// And back. Its slot is the peer's word.
Answer answer_of(std::uint32_t immediate, std::uint32_t bytes) noexcept;

/// Of a fixed field: up to its first NUL, printable ASCII, anything else as '?'.
std::string printable(std::span<const char> field);

}  // namespace kelp::wire
