// The attach protocol: one request, one reply, over a SOCK_SEQPACKET Unix socket. The reply brings
// the descriptors; afterwards the socket carries nothing, and its hang-up is how each side learns
// of the other's death. Both structs are fixed-size and padded with zeroes.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "shm_ring/layout.h"
#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

inline constexpr std::uint64_t kAttachMagic = 0x31484341'54544b4c;  // "LKTTACH1"
inline constexpr const char* kDefaultRunDir = "/run/kelp";
inline constexpr const char* kAttachSocketName = "attach.sock";
inline constexpr const char* kControlSocketName = "control.sock";

/// Rings of one client: a reply brings two descriptors for each, and one message carries 253.
inline constexpr std::uint32_t kMaxRingsPerClient = 120;

/// Feature bits: what a side can do. The reply grants the intersection.
inline constexpr std::uint64_t kFeatureExtraBlock = 1U << 0;  ///< Submission.extra may be non-zero
inline constexpr std::uint64_t kSupportedFeatures = kFeatureExtraBlock;

struct AttachRequest {
  std::uint64_t magic = kAttachMagic;
  std::uint16_t abi_major = kAbiMajor;
  std::uint16_t abi_minor = kAbiMinor;
  std::uint32_t channels = 0;  ///< threads; each gets one ring per worker
  std::uint64_t features = 0;
  std::uint64_t data_bytes = 0;
  std::uint32_t submission_entries = 0;  ///< 0: the daemon's choice
  std::uint32_t reserved0 = 0;
  std::array<char, 64> name{};  ///< for operators; not trusted, not terminated if full
  std::array<std::uint64_t, 4> reserved{};
};
static_assert(sizeof(AttachRequest) == 136);

struct AttachReply {
  std::uint64_t magic = kAttachMagic;
  std::uint16_t abi_major = kAbiMajor;
  std::uint16_t abi_minor = kAbiMinor;
  std::uint32_t status = 0;  ///< kelp_status; on anything but KELP_OK only `message` follows
  std::uint64_t features = 0;
  std::uint64_t data_bytes = 0;
  std::uint64_t data_page_bytes = 0;
  std::uint32_t workers = 0;
  std::uint32_t channels = 0;  ///< ring of (channel c, worker w) is c * workers + w
  std::uint32_t submission_entries = 0;
  std::uint32_t completion_entries = 0;
  std::uint64_t max_timeout_us = 0;
  std::array<std::uint64_t, 4> reserved{};
  std::array<char, 256> message{};  ///< a sentence, terminated
};
static_assert(sizeof(AttachReply) == 352);

/// Descriptors of a granted attach, in the order they travel.
struct AttachDescriptors {
  UniqueFd ring_segment;
  UniqueFd data_area;
  std::vector<UniqueFd> client_wakes;  ///< per ring: readable when completions are waiting
  std::vector<UniqueFd> worker_wakes;  ///< per ring: an eventfd the client writes
};

/// Sends `bytes` as one message with `fds` attached. Never blocks longer than the socket's own
/// send timeout.
Result<void> send_message(int socket, std::span<const std::byte> bytes, std::span<const int> fds);

struct ReceivedMessage {
  std::size_t bytes = 0;  ///< 0: the peer closed
  std::vector<UniqueFd> fds;
};

/// Receives one message of at most `buffer.size()` bytes; a longer one is an error. Descriptors
/// arrive close-on-exec. Obeys the socket's receive timeout.
Result<ReceivedMessage> receive_message(int socket, std::span<std::byte> buffer);

/// Connects to a SOCK_SEQPACKET socket at `path`, with send and receive timeouts of `timeout_ms`.
Result<UniqueFd> connect_seqpacket(const std::string& path, std::uint32_t timeout_ms);

}  // namespace kelp
