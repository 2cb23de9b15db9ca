// A client without libkelp: attaches, then writes into the shared memory whatever a test likes.
#pragma once

#include <sys/mman.h>

#include <cstring>
#include <stdexcept>
#include <string>

#include "shm_ring/attach.h"
#include "shm_ring/layout.h"
#include "shm_ring/mapping.h"
#include "support/test_daemon.h"

namespace kelp::test {

class RawClient {
 public:
  explicit RawClient(const TestDaemon& daemon, std::uint32_t channels = 1,
                     std::uint64_t data_bytes = 1 << 20)
      : RawClient(daemon.socket_path(), channels, data_bytes) {}
  /// Throws the daemon's own sentence where it refuses.
  RawClient(const std::string& socket_path, std::uint32_t channels, std::uint64_t data_bytes,
            const std::string& name = "") {
    auto connected = connect_seqpacket(socket_path, 5000);
    if (!connected) throw std::runtime_error(connected.error().what);
    socket = std::move(*connected);
    AttachRequest request;
    request.channels = channels;
    request.data_bytes = data_bytes;
    name.copy(request.name.data(), request.name.size());
    if (!send_message(socket.get(), std::as_bytes(std::span(&request, 1)), {})) {
      throw std::runtime_error("cannot ask");
    }
    auto received = receive_message(socket.get(), std::as_writable_bytes(std::span(&reply, 1)));
    if (!received || received->bytes != sizeof reply) throw std::runtime_error("no reply");
    if (reply.status != 0) throw std::runtime_error(reply.message.data());
    fds = std::move(received->fds);
    layout = {reply.channels, reply.submission_entries, reply.completion_entries};
    auto mapped = Mapping::map_shared(fds[0].get(), layout.segment_bytes(), "the rings");
    if (!mapped) throw std::runtime_error(mapped.error().what);
    segment = std::move(*mapped);
    auto data_mapped = Mapping::map_shared(fds[1].get(), reply.data_bytes, "the data area");
    if (!data_mapped) throw std::runtime_error(data_mapped.error().what);
    data = std::move(*data_mapped);
  }

  std::byte* block(std::uint32_t ring = 0) const {
    return segment.data() + layout.ring_offset(ring);
  }
  RingControl& control(std::uint32_t ring = 0) const {
    return *reinterpret_cast<RingControl*>(block(ring));
  }
  void set_completion_head(std::uint32_t head, std::uint32_t ring = 0) const {
    __atomic_store_n(&control(ring).completion_head, head, __ATOMIC_RELEASE);
  }
  RingState state(std::uint32_t ring = 0) const {
    return static_cast<RingState>(__atomic_load_n(&control(ring).state, __ATOMIC_ACQUIRE));
  }

  /// Writes `entry` as it is, but with the lap mark the daemon expects at `index`.
  void put(std::uint32_t index, Submission entry, std::uint32_t ring = 0) const {
    entry.sequence = index + 1;
    put_as_is(index, entry, ring);
  }
  void put_as_is(std::uint32_t index, const Submission& entry, std::uint32_t ring = 0) const {
    std::uint64_t words[8];
    std::memcpy(words, &entry, sizeof words);
    auto* slot = reinterpret_cast<std::uint64_t*>(block(ring) + layout.submissions_offset()) +
                 std::size_t{index & (layout.submission_entries - 1)} * 8;
    for (int i = 1; i < 8; ++i) __atomic_store_n(slot + i, words[i], __ATOMIC_RELAXED);
    __atomic_store_n(slot, words[0], __ATOMIC_RELEASE);
  }
  Completion completion(std::uint32_t index, std::uint32_t ring = 0) const {
    const auto* slot =
        reinterpret_cast<const std::uint64_t*>(block(ring) + layout.completions_offset()) +
        std::size_t{index & (layout.completion_entries - 1)} * 4;
    std::uint64_t words[4];
    for (int i = 0; i < 4; ++i) words[i] = __atomic_load_n(slot + i, __ATOMIC_ACQUIRE);
    Completion result;
    std::memcpy(&result, words, sizeof result);
    return result;
  }

  UniqueFd socket;
  AttachReply reply;
  SegmentLayout layout;
  std::vector<UniqueFd> fds;  // ring segment, data area, client wakes, worker wakes
  Mapping segment;
  Mapping data;
};

}  // namespace kelp::test
