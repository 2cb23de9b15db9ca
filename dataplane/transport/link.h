// One interface for every way two workers are connected: what a worker says to the other side, and
// what it hears. Slots, credits and generations are dataplane/wire/request_slots.h's; how the bytes
// move is the transport's.
//
// A link belongs to one worker. Nothing here waits, and nothing is sent before flush().
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "dataplane/memory/region_keys.h"
#include "dataplane/transport/link_counters.h"
#include "dataplane/wire/frames.h"
#include "shm_ring/file_id.h"
#include "shm_ring/kelp.h"

namespace kelp {

/// A read, or one slice of it, as a gateway asks for it.
struct LinkRead {
  FileId fid;
  bool stat = false;
  std::uint64_t offset_bytes = 0;
  std::span<std::byte> buffer;       ///< where the answer lands; at most max_slice_bytes()
  const RegionKeys* keys = nullptr;  ///< of the memory it lies in; null: not for adapters
  std::uint32_t timeout_us = 0;
  std::string_view token;  ///< of at most wire::kMostTokenBytes
};

/// The gateway's end.
class GatewayLink {
 public:
  class User {
   public:
    /// The answer of `owner`, whose buffer is its own again. `intact`: its bytes are all there, and
    /// the checksum that came with them fits.
    virtual void answered(std::uint32_t owner, const wire::Answer& answer, bool intact) = 0;
    /// An answer that nobody waits for any more has come, and was passed over.
    virtual void passed_over(GatewayLink& link) = 0;
    /// After let_go() had to answer false: nothing writes into that buffer any more.
    virtual void released(std::uint32_t owner) = 0;
    /// The link is fenced, and `owner` has no answer; nothing writes into its buffer any more.
    virtual void lost(std::uint32_t owner) = 0;

   protected:
    ~User() = default;
  };

  virtual ~GatewayLink() = default;

  /// Its user's to write, once it has been said where.
  void count_in(std::shared_ptr<LinkCounters> counters) { counters_ = std::move(counters); }
  LinkCounters& counters() const noexcept { return *counters_; }

  /// A slot for a request of `owner`; nullopt: no credit is left, the link is ending, or it cannot
  /// write to such memory.
  virtual std::optional<std::uint16_t> ask(std::uint32_t owner, const LinkRead& read) = 0;
  /// Nobody waits for the request in `slot` any more: it is not answered, and its slot comes back
  /// in time. False: something may still write into its buffer, until released(). (Never over TCP:
  /// only who writes by itself, as a remote host's adapter does, cannot be told to stop at once.)
  virtual bool let_go(std::uint16_t slot) = 0;
  /// True: more can go at once, and others may be waiting: once more, next turn.
  virtual bool flush() = 0;
  /// Ends it. fenced() is true some time after.
  virtual void fence() = 0;
  /// Nothing of it lands anywhere any more; everybody has been told. It may be destroyed.
  virtual bool fenced() const = 0;
  /// The target wants no new requests, or the link is broken: ask() answers nullopt.
  virtual bool ending() const = 0;
  virtual std::uint16_t in_flight() const = 0;
  virtual std::uint32_t max_slice_bytes() const = 0;
  /// What its answers come by.
  virtual kelp_path path() const = 0;

 private:
  std::shared_ptr<LinkCounters> counters_;
};

/// Where the bytes of an answer are, and what is known of them.
struct AnswerBytes {
  std::optional<std::uint32_t> crc32c = {};  ///< none: it is to be computed
  int file = -1;                             ///< they are not in the room but there, from
  std::uint64_t offset_bytes = 0;            ///< on. Only where sends_files(), and with crc32c
};

/// The target's end.
class TargetLink {
 public:
  class User {
   public:
    /// To be answered once, by answer(). `token` is gone with the call.
    virtual void asked(TargetLink& link, const wire::Request& request, std::string_view token) = 0;
    /// Nobody waits for that answer: it may as well come at once, and without bytes.
    virtual void cancelled(TargetLink& link, std::uint16_t slot) = 0;

   protected:
    ~User() = default;
  };

  virtual ~TargetLink() = default;

  /// Its user's to write, once it has been said where.
  void count_in(std::shared_ptr<LinkCounters> counters) { counters_ = std::move(counters); }
  LinkCounters& counters() const noexcept { return *counters_; }

  /// Memory for the payload of the request in `slot`: as long as the request is unanswered it is
  /// its reader's; then the transport's.
  virtual std::span<std::byte> room(std::uint16_t slot) = 0;
  /// Whether bytes can go from a file to the network without coming to a room.
  virtual bool sends_files() const = 0;
  /// The one answer to the request in `answer.slot`, with the first `answer.bytes` of its room, or
  /// so many of a file. These are read again to be sent: whoever changes them meanwhile spoils the
  /// checksum, which the gateway finds.
  virtual void answer(wire::Answer answer, const AnswerBytes& bytes = {}) = 0;
  /// The one answer to the request in `slot`, with KELP_DEADLINE and no bytes, while somebody still
  /// reads into its room: that stays the reader's until give_back(). False: nothing has happened,
  /// for a room is one with its slot, or too many are out already.
  virtual bool answer_at_once(std::uint16_t slot) = 0;
  virtual void give_back(std::span<std::byte> room) = 0;
  /// True: more can go at once, and others may be waiting: once more, next turn.
  virtual bool flush() = 0;
  /// Says that it ends soon. What is under way is answered.
  virtual void drain() = 0;
  virtual void fence() = 0;
  /// Nothing reads rooms any more. Requests that were under way need no answer.
  virtual bool fenced() const = 0;
  virtual bool broken() const = 0;
  /// Requests without an answer, and rooms that are still to be given back.
  virtual std::uint16_t in_flight() const = 0;

 private:
  std::shared_ptr<LinkCounters> counters_;
};

}  // namespace kelp
