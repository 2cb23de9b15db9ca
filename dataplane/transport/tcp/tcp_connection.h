// Frames and payloads of Wire v1 over one TCP socket.
//
// Knows nothing of requests: its user is a gateway's or a target's link. A payload goes
//   up to kCopiedBytes: into memory of the connection, and once its checksum fits, on to where it
//     belongs: one call for frame and payload, and nothing wrong ever lands;
//   the rest of a longer one: straight to where it belongs, as long as somebody waits for it.
//
// One thread; nothing here waits. The Uring says when something has come, and when more can be
// sent; it is never lent memory. What moves bytes are calls that touch none once they have
// returned, so a destination may be taken back at any time.
#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "dataplane/transport/uring.h"
#include "dataplane/wire/frames.h"
#include "shm_ring/unique_fd.h"

namespace kelp {

class TcpConnection {
 public:
  static constexpr std::size_t kCopiedBytes = 16 * 1024;

  /// Where the payload behind a frame goes. Nowhere: `destination` is empty, and it is passed over.
  struct Payload {
    std::uint32_t bytes = 0;
    std::uint32_t crc32c = 0;
    std::span<std::byte> destination;  ///< of `bytes`
  };
  class User {
   public:
    /// A frame, whole and sealed. False: the peer broke the protocol.
    virtual bool take_frame(wire::FrameKind kind, std::span<const std::byte> frame,
                            Payload& payload) = 0;
    /// The payload that was announced last has come. `intact`: its checksum fits, and it is all
    /// where it belongs.
    virtual void take_payload(bool intact) = 0;
    /// fenced() has become true, other than by fence().
    virtual void has_ended() {}

   protected:
    ~User() = default;
  };

  /// `most_queued`: frames that are posted and not sent yet, at most. `received` came with the
  /// handshake. `id` is in the upper 56 bits of what it queues in `uring`.
  TcpConnection(Uring& uring, UniqueFd socket, std::uint64_t id, std::size_t most_queued,
                std::span<const std::byte> received, User& user);
  /// Once, before anything else: `user` is ready to hear.
  void start() noexcept;

  /// Queues a frame and what follows it, which stays as it is until it has been received. False:
  /// the queue is full, which breaks the connection.
  bool post(std::span<const std::byte> frame, std::span<const std::byte> payload = {}) noexcept;
  /// The same with bytes of a file, that go to the network without coming to memory of ours.
  struct FileBytes {
    UniqueFd fd;
    std::uint64_t offset_bytes = 0;
    std::uint32_t bytes = 0;
  };
  bool post(std::span<const std::byte> frame, FileBytes payload) noexcept;
  /// Sends what is queued, as far as the socket takes it; the rest follows by completed(). True: it
  /// has had its turn and takes more, next time.
  bool flush() noexcept;
  /// Something of `id` completed. True: there is something to be received.
  bool completed(const Uring::Completion& completion) noexcept;
  enum class Received : std::uint8_t {
    kNothing,
    kAll,   ///< what had come: the Uring says when more does
    kPart,  ///< there may be more
  };
  /// Takes what has come, or a part of it.
  Received receive() noexcept;
  /// Somebody asks receive() all the time from now on: the Uring need not tell. To be told of each
  /// arrival costs the sender's and the receiver's kernel about as much as the arrival itself.
  void stop_watching() noexcept;
  /// Nobody does any more.
  void watch_again() noexcept;
  /// The payload under way shall not land in its destination any more.
  void let_go() noexcept { payload_.destination = {}; }
  bool payload_under_way() const noexcept { return payload_left_ != 0; }

  /// Nothing more is sent or received, from now on; the Uring lets go of the socket before long.
  void fence() noexcept;
  bool broken() const noexcept { return broken_; }
  /// Broken, and the Uring has let go: nothing of it comes any more.
  bool fenced() const noexcept { return broken_ && !full_ && !watched_; }
  const char* why_broken() const noexcept { return why_; }

 private:
  enum class Tag : std::uint8_t { kSend = 1, kWatch = 2 };
  struct Outgoing {
    std::array<std::byte, wire::kMostFrameBytes> frame;
    std::uint16_t frame_bytes = 0;
    std::span<const std::byte> payload;  // or
    FileBytes file;

    std::size_t in_memory() const noexcept { return frame_bytes + payload.size(); }
  };
  static constexpr std::size_t kMostParts = 64;

  std::uint64_t user_of(Tag tag) const noexcept {
    return id_ << 8 | static_cast<std::uint64_t>(tag);
  }
  void break_off(const char* why) noexcept;
  void watch() noexcept;
  Outgoing* next_outgoing(std::span<const std::byte> frame) noexcept;
  int prepare_message() noexcept;
  ssize_t send_some() noexcept;
  bool send_next() noexcept;
  void take_sent(std::size_t bytes) noexcept;
  std::span<std::byte> prepare_receive() noexcept;
  void take_bytes(std::size_t bytes) noexcept;
  void take_received() noexcept;
  bool take_one() noexcept;
  bool take_payload_bytes() noexcept;
  void end_payload() noexcept;

  Uring& uring_;
  const UniqueFd socket_;
  const std::uint64_t id_;
  User& user_;
  bool broken_ = false;
  const char* why_ = "";

  std::vector<Outgoing> queue_;  // a ring: [sent_, posted_)
  std::uint64_t sent_ = 0;       // all before it are gone
  std::uint64_t posted_ = 0;
  std::size_t sent_of_first_ = 0;
  bool full_ = false;  // the socket is; the Uring says when it is not
  msghdr message_{};
  std::array<iovec, kMostParts> parts_{};

  std::unique_ptr<std::byte[]> buffer_;
  std::size_t begin_ = 0;  // [begin_, end_) of it is unread
  std::size_t end_ = 0;
  bool watched_ = false;            // by the Uring
  bool asked_often_ = false;        // and so not to be watched
  bool hung_up_ = false;            // the peer has, as far as it has told
  bool receives_straight_ = false;  // into the destination
  Payload payload_;
  std::uint32_t payload_left_ = 0;
  std::uint32_t payload_crc_ = 0;
};

}  // namespace kelp
