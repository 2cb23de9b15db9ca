// Turns an Exchange that asks for bytes into ring requests, and their completions into an answer.
// The sidecar's thread only. Sends nothing: the server sends what is ready, and tells what it sent.
//
//   begin ─► stat and read in one batch ─► head and bytes ────────────────► sent
//         │                             ├► the slice again, whole ─► ...
//         │                             └► pieces, read while others are sent; the
//         │                                last one waits for a second stat: is it the same needle,
//         │                                and are these its bytes?
//         └► stat alone (HEAD, Range, conditions) ─► 304, 416, or the read
//
// A body of up to 1 MiB is one read of the ring. Pieces have 256 KiB, those of a compressed needle
// 1 MiB: each of them costs to inflate all of it. read_answer.cc asks and decides;
// read_answer_head.cc says it: heads, and errors by their sentences.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "sidecar/answer_head.h"
#include "sidecar/counters.h"
#include "sidecar/exchange.h"
#include "sidecar/options.h"
#include "sidecar/ring.h"
#include "sidecar/temp_files.h"

namespace kelp::sidecar {

/// From the request to the first byte of its answer: the mount gives up after 5 s.
constexpr std::chrono::milliseconds kAnswerTime{4000};

class Reads {
 public:
  Reads(Ring& ring, MountAccepts mount_accepts, Counters& counters)
      : ring_(ring), mount_accepts_(mount_accepts), counters_(counters) {}

  /// Answers of /read that a mount takes, of at least `least_bytes`, name a file of `files`, too.
  void offer_files(TempFiles& files, std::uint64_t least_bytes) noexcept {
    temp_files_ = &files;
    least_file_bytes_ = least_bytes;
  }

  /// The exchange is new; its answer is ready at once or comes later.
  void begin(Exchange& exchange);

  /// Whose it was: there may be more of it to send now.
  Exchange& completed(const kelp_completion& completion);

  /// The bytes of a piece have gone out.
  void piece_sent(Exchange& exchange);

  /// Its connection is gone, or all is sent: gives back what it holds. True: nothing is in flight,
  /// so it may go, too.
  bool release(Exchange& exchange);

  /// Those that wait for slabs or places in the ring, first come, first served. Appends the
  /// connections that have got an answer by it, be it that they waited too long. True: the first
  /// who waits lacks a slab.
  bool serve_waiting(Clock::time_point now, std::vector<std::uint32_t>& answered);
  bool anyone_waits() const noexcept { return !waiting_.empty(); }

  /// The ring is gone, and with it what was in flight: 503, or the connection is cut.
  void lost(Exchange& exchange);

  /// An answer that is text, of any status.
  void answer_text(Exchange& exchange, int status, std::string_view content_type, std::string text,
                   std::string_view allow = {});
  /// {"error": "..."} under that status.
  void answer_error(Exchange& exchange, int status, std::string_view sentence);

 private:
  enum class Op : std::uint64_t { kStat, kRead0, kRead1, kNop, kCheck };

  bool try_begin(Exchange& exchange);
  void add(Exchange& exchange, Op op, std::uint64_t offset, std::uint32_t length);
  /// The piece's slab has room for `bytes`, and still holds the stat; false: there is none.
  bool make_room(Piece& piece, std::uint32_t bytes);
  void decide(Exchange& exchange);
  void decide_by_stat(Exchange& exchange);
  void decide_by_read(Exchange& exchange);
  void begin_again(Exchange& exchange);
  void slice_of(Exchange& exchange, std::uint64_t total);
  void read_slice(Exchange& exchange);
  void answer_bytes(Exchange& exchange);
  void answer_status(Exchange& exchange, kelp_status status);
  void answer_too_far(Exchange& exchange, std::uint64_t total);
  void answer_too_costly(Exchange& exchange);
  void write_head(Exchange& exchange, int status, std::uint64_t content_bytes, kelp_path path,
                  std::string_view temp_file = {});
  void write_about(AnswerHead& head, const Exchange& exchange);
  static void end_head(Exchange& exchange, AnswerHead& head);
  void read_ahead(Exchange& exchange);
  void piece_read(Exchange& exchange, std::uint32_t which, const kelp_completion& done);
  void checked(Exchange& exchange, const kelp_completion& done);
  static bool has_checksum(const Exchange& exchange) noexcept;
  void next_of_benchmark(Exchange& exchange, const kelp_completion* done);
  bool marked(kelp_path path) const noexcept;
  std::string temp_file_of(const Exchange& exchange, std::uint64_t bytes, kelp_path path);
  void wait(Exchange& exchange);
  void wait_for_slab(Exchange& exchange, std::uint32_t bytes);
  void give_up(Exchange& exchange);

  Ring& ring_;
  const MountAccepts mount_accepts_;
  Counters& counters_;
  TempFiles* temp_files_ = nullptr;  // null: none are offered
  std::uint64_t least_file_bytes_ = 0;
  DateLine date_;
  std::vector<Exchange*> waiting_;
  std::vector<Exchange*> serving_;  // those of them that have their turn now
};

}  // namespace kelp::sidecar
