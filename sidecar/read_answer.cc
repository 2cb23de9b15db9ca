#include "sidecar/read_answer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"
#include "sidecar/byte_range.h"
#include "sidecar/pages.h"

namespace kelp::sidecar {
namespace {

constexpr std::uint64_t kOpMask = 7;
constexpr std::uint8_t kMostTries = 3;
/// Bytes that are inflated for one answer in pieces: some seconds of the loader, which others want.
constexpr std::uint64_t kMostInflated = 4ull << 30;

bool stat_alone(const Exchange& exchange) noexcept {
  return exchange.head_only || !exchange.range.empty() || !exchange.if_none_match.empty() ||
         !exchange.if_modified_since.empty();
}

/// Of the first read, before the length of the needle is known; or again, when it is.
std::uint32_t first_bytes(const Exchange& exchange) noexcept {
  if (exchange.body_slab != 0) return exchange.body_slab;
  if (exchange.size == 0) return Buffers::kSmallest;
  if (exchange.size > Buffers::kLargest) return Buffers::kMiddle;
  return static_cast<std::uint32_t>(exchange.size);
}

std::uint32_t time_left_us(const Exchange& exchange) noexcept {
  const auto left =
      std::chrono::duration_cast<std::chrono::microseconds>(exchange.deadline - Clock::now());
  return static_cast<std::uint32_t>(std::max<std::int64_t>(left.count(), 1000));
}

/// Of the needle the stat spoke of. Whoever writes a needle changes one of these.
bool same_needle(const kelp_stat& a, const kelp_stat& b) noexcept {
  return a.total == b.total && a.stored == b.stored && a.crc32c == b.crc32c &&
         a.append_at_ns == b.append_at_ns && a.modified_s == b.modified_s;
}

bool is_compressed(const kelp_stat& about) noexcept {
  return (about.flags & KELP_STAT_COMPRESSED) != 0;
}

/// Of a body in pieces. Each read of a compressed needle inflates all of it, so fewer are better.
std::uint32_t piece_bytes(const kelp_stat& about) noexcept {
  return is_compressed(about) ? Buffers::kLargest : Buffers::kMiddle;
}

/// Each piece costs as much as the whole needle, and so do both stats and the first read.
bool costs_too_much(const kelp_stat& about, std::uint64_t bytes) noexcept {
  if (!is_compressed(about) || bytes <= Buffers::kLargest) return false;
  const std::uint64_t looks = bytes / Buffers::kLargest + 4;
  return about.total > kMostInflated / looks;
}

/// The stat's checksum is that of all bytes of the needle as they are read. Not where they are
/// inflated (then each read has compared it), nor where the volume server alone was asked, which
/// does not tell how they are stored.
bool tells_checksum(const kelp_stat& about) noexcept {
  return !is_compressed(about) && about.stored == about.total;
}

std::span<const std::byte> bytes_of(const Piece& piece) noexcept {
  return {piece.slab->data, piece.bytes};
}

bool has_hints(const Exchange& exchange) noexcept {
  return exchange.hinted || !exchange.token.empty();
}

/// False: they are too long, which they are for every slab.
bool put_hints(const Exchange& exchange, const Slab& slab) noexcept {
  if (!has_hints(exchange)) return true;
  const kelp_hints hints{exchange.token.empty() ? nullptr : exchange.token.c_str(),
                         exchange.hinted ? exchange.volume_server.c_str() : nullptr};
  return kelp_hints_put(slab.hints(), &hints) == KELP_OK;
}

/// As the volume server decides it.
bool not_modified(const Exchange& exchange) noexcept {
  if (status_of(exchange.stat) != KELP_OK) return false;
  const auto modified_s = static_cast<std::int64_t>(exchange.about.modified_s);
  if (modified_s != 0 && !exchange.if_modified_since.empty()) {
    const auto since_s = parse_http_date(exchange.if_modified_since);
    if (since_s && *since_s >= modified_s) return true;
  }
  std::array<char, 10> etag;
  write_etag(exchange.about.crc32c, etag);
  return exchange.if_none_match == std::string_view(etag.data(), etag.size());
}

}  // namespace

// ---- beginning ------------------------------------------------------------------------------

void Reads::begin(Exchange& exchange) {
  exchange.deadline = exchange.arrived + kAnswerTime;
  if (!ring_.attached()) return answer_error(exchange, 503, "kelpd's workers are not there yet");
  // In turn: who waits already is served first.
  if (!waiting_.empty() || !try_begin(exchange)) wait(exchange);
}

void Reads::wait(Exchange& exchange) {
  exchange.waits = true;
  waiting_.push_back(&exchange);
}

/// Before its head is written: there is no slab for its body yet. What was learnt is learnt again,
/// and the needle may be another one by then. Meanwhile it holds none that others want.
void Reads::wait_for_slab(Exchange& exchange, std::uint32_t bytes) {
  exchange.partial = false;
  exchange.body_slab = bytes;
  for (Piece& piece : exchange.pieces) ring_.buffers()->give(std::exchange(piece.slab, nullptr));
  wait(exchange);
}

/// In turn, but those who want a large slab do not stop those who want a small one.
bool Reads::serve_waiting(Clock::time_point now, std::vector<std::uint32_t>& answered) {
  serving_.clear();
  serving_.swap(waiting_);
  for (Exchange* const each : serving_) {
    each->waits = false;
    if (now >= each->deadline) {
      give_up(*each);
    } else if (each->answering) {
      const Clock::time_point deadline = each->deadline;
      read_ahead(*each);
      if (each->waits) each->deadline = deadline;  // it goes on waiting
    } else if (!try_begin(*each)) {
      wait(*each);
    }
    if (each->answering && !each->waits) answered.push_back(each->connection);
  }
  return !waiting_.empty() && ring_.has_room(2);
}

/// It waited too long.
void Reads::give_up(Exchange& exchange) {
  if (exchange.answering) {
    exchange.broken = true;
  } else {
    answer_error(exchange, 503, "too many others are being served");
  }
}

bool Reads::make_room(Piece& piece, std::uint32_t bytes) {
  // A read that timed out may still write into a slab: the ring would refuse another one there.
  if (piece.slab != nullptr && piece.slab->bytes >= bytes && !piece.slab->held) return true;
  Slab* const slab = ring_.buffers()->take(bytes);
  if (slab == nullptr) return false;
  if (piece.slab != nullptr) {
    std::memcpy(slab->stat(), piece.slab->stat(), kStatBytes);
    ring_.buffers()->give(piece.slab);
  }
  piece.slab = slab;
  return true;
}

bool Reads::try_begin(Exchange& exchange) {
  if (!ring_.has_room(2)) return false;
  if (exchange.kind == Exchange::Kind::kPing) {
    exchange.stage = Exchange::Stage::kNop;
    add(exchange, Op::kNop, 0, 0);
    return true;
  }
  Piece& piece = exchange.pieces[0];
  if (!make_room(piece, first_bytes(exchange))) return false;
  if (!put_hints(exchange, *piece.slab)) {
    answer_error(exchange, 400, "token and volume_server are too long");
    return true;
  }
  if (exchange.kind == Exchange::Kind::kBenchmark) {
    exchange.stage = Exchange::Stage::kRepeat;
    next_of_benchmark(exchange, nullptr);
    return true;
  }
  // The stat first: if the needle is written anew in between, the new bytes go out under the old
  // ETag, which no later question agrees with. The other way round it would stay wrong for ever.
  add(exchange, Op::kStat, 0, kStatBytes);
  exchange.stage = stat_alone(exchange) ? Exchange::Stage::kStat : Exchange::Stage::kFirst;
  if (exchange.stage == Exchange::Stage::kFirst) {
    add(exchange, Op::kRead0, exchange.offset, first_bytes(exchange));
  }
  return true;
}

void Reads::begin_again(Exchange& exchange) {
  if (++exchange.tries >= kMostTries) {
    return answer_error(exchange, 503, "the needle is being written again and again");
  }
  if (!try_begin(exchange)) wait(exchange);
}

void Reads::add(Exchange& exchange, Op op, std::uint64_t offset, std::uint32_t length) {
  kelp_request request{};
  request.tag = reinterpret_cast<std::uintptr_t>(&exchange) | static_cast<std::uint64_t>(op);
  request.op = op == Op::kNop                        ? KELP_OP_NOP
               : op == Op::kStat || op == Op::kCheck ? KELP_OP_STAT
                                                     : KELP_OP_READ;
  request.timeout_us = time_left_us(exchange);
  if (op != Op::kNop) {
    const std::uint32_t which = op == Op::kRead1 ? 1 : op == Op::kCheck ? exchange.last : 0;
    Slab& slab = *exchange.pieces[which].slab;
    request.fid = exchange.fid;
    request.offset = offset;
    request.length = length;
    request.buffer = request.op == KELP_OP_STAT ? slab.stat() : slab.data;
    // Of a body in pieces the later ones need them as well.
    if (has_hints(exchange)) request.hints = slab.hints();
  }
  ++exchange.in_flight;
  ring_.add(request);
}

// ---- deciding -------------------------------------------------------------------------------

Exchange& Reads::completed(const kelp_completion& done) {
  Exchange& exchange = *reinterpret_cast<Exchange*>(done.tag & ~kOpMask);
  const Op op = static_cast<Op>(done.tag & kOpMask);
  --exchange.in_flight;
  const std::uint32_t which = op == Op::kRead1 ? 1 : op == Op::kCheck ? exchange.last : 0;
  if ((done.flags & KELP_FLAG_BUFFER_HELD) != 0 && exchange.pieces[which].slab != nullptr) {
    exchange.pieces[which].slab->held = true;
  }
  if (exchange.orphan) return exchange;
  switch (exchange.stage) {
    case Exchange::Stage::kNop:
      if (status_of(done) != KELP_OK) {
        answer_status(exchange, status_of(done));
      } else {
        answer_text(exchange, 200, kJsonType, ping_json(Clock::now() - exchange.arrived));
      }
      return exchange;
    case Exchange::Stage::kRepeat:
      next_of_benchmark(exchange, &done);
      return exchange;
    case Exchange::Stage::kAnswering:
      if (op == Op::kCheck) {
        checked(exchange, done);
      } else {
        piece_read(exchange, which, done);
      }
      return exchange;
    default:
      (op == Op::kStat ? exchange.stat : exchange.read) = done;
      if (op == Op::kStat && status_of(done) == KELP_OK) {
        std::memcpy(&exchange.about, exchange.pieces[0].slab->stat(), sizeof exchange.about);
      }
      if (exchange.in_flight == 0) decide(exchange);
      return exchange;
  }
}

void Reads::decide(Exchange& exchange) {
  const bool by_stat = exchange.stage == Exchange::Stage::kStat;
  const kelp_status status = status_of(by_stat ? exchange.stat : exchange.read);
  if (status == KELP_OK) return by_stat ? decide_by_stat(exchange) : decide_by_read(exchange);
  if (status == KELP_RANGE) {
    const bool told = status_of(exchange.stat) == KELP_OK;
    return answer_too_far(exchange, told ? exchange.about.total : exchange.read.total);
  }
  // Kelp's own ways have failed: the server that the caller named may be another one.
  const bool elsewhere = status == KELP_UNAVAILABLE || status == KELP_USE_HTTP;
  if (elsewhere && !exchange.hinted && !exchange.volume_server.empty() &&
      Clock::now() < exchange.deadline) {
    exchange.hinted = true;
    if (!try_begin(exchange)) wait(exchange);
    return;
  }
  // That the named server is not to be asked is no reason to say that the token is wrong.
  const bool only_the_hint = status == KELP_DENIED && exchange.hinted && exchange.token.empty();
  answer_status(exchange, only_the_hint ? KELP_UNAVAILABLE : status);
}

/// begin and end of what is answered with, where the needle has `total` bytes. end > total: it does
/// not reach so far.
void Reads::slice_of(Exchange& exchange, std::uint64_t total) {
  exchange.begin = exchange.offset;
  exchange.end =
      exchange.size != 0 ? exchange.offset + exchange.size : std::max(total, exchange.offset);
}

void Reads::decide_by_stat(Exchange& exchange) {
  const std::uint64_t total = exchange.about.total;
  if (not_modified(exchange)) return write_head(exchange, 304, 0, KELP_PATH_NONE);
  slice_of(exchange, total);
  if (exchange.end > total) return answer_too_far(exchange, total);
  const std::uint64_t bytes = exchange.end - exchange.begin;
  if (exchange.head_only) return write_head(exchange, 200, bytes, path_of(exchange.stat));
  const ByteRange range = parse_byte_range(exchange.range, bytes);
  if (range.kind == ByteRange::Kind::kUnsatisfiable) return answer_too_far(exchange, bytes);
  if (range.kind == ByteRange::Kind::kPart) {
    exchange.partial = true;
    exchange.range_base = exchange.begin;
    exchange.range_total = bytes;
    exchange.end = exchange.begin + range.end;
    exchange.begin += range.begin;
  }
  read_slice(exchange);
}

/// One read of all of it, or of a first piece.
void Reads::read_slice(Exchange& exchange) {
  const std::uint64_t bytes = exchange.end - exchange.begin;
  exchange.stage = Exchange::Stage::kAgain;
  exchange.read = {};
  exchange.read.total = exchange.about.total;
  if (bytes == 0) return answer_bytes(exchange);
  if (costs_too_much(exchange.about, bytes)) return answer_too_costly(exchange);
  const auto first =
      static_cast<std::uint32_t>(bytes > Buffers::kLargest ? piece_bytes(exchange.about) : bytes);
  if (!ring_.has_room(1) || !make_room(exchange.pieces[0], first)) {
    return wait_for_slab(exchange, first);
  }
  put_hints(exchange, *exchange.pieces[0].slab);
  add(exchange, Op::kRead0, exchange.begin, first);
}

void Reads::decide_by_read(Exchange& exchange) {
  const std::uint64_t total = exchange.read.total;
  const bool told = status_of(exchange.stat) == KELP_OK;
  if (told && exchange.about.total != total) {
    exchange.partial = false;
    return begin_again(exchange);
  }
  if (exchange.stage == Exchange::Stage::kFirst) slice_of(exchange, total);
  if (exchange.end > total) return answer_too_far(exchange, total);
  const std::uint64_t wanted = exchange.end - exchange.begin;
  if (exchange.read.bytes >= wanted) return answer_bytes(exchange);
  // A short one is read again in one piece, so that its checksum is compared.
  if (wanted <= Buffers::kLargest && exchange.stage == Exchange::Stage::kFirst) {
    exchange.about.total = total;
    return read_slice(exchange);
  }
  // Of a body in pieces the end is compared with the beginning.
  if (!told || wanted <= Buffers::kLargest) return answer_status(exchange, KELP_UNAVAILABLE);
  // Pieces take turns in one slab, if there is no second one. Once the head is out it is too late
  // to wait for the first.
  const std::uint32_t piece = piece_bytes(exchange.about);
  if (exchange.pieces[0].slab->bytes < piece && !make_room(exchange.pieces[1], piece)) {
    return wait_for_slab(exchange, piece);
  }
  answer_bytes(exchange);
}

void Reads::answer_bytes(Exchange& exchange) {
  const std::uint64_t bytes = exchange.end - exchange.begin;
  const kelp_path path = path_of(exchange.read);
  if (exchange.json) {
    if (bytes > Buffers::kLargest) {
      return answer_error(exchange, 400, "format=json is for parts of up to 1 MiB: give a size");
    }
    const auto* const data = reinterpret_cast<const char*>(exchange.pieces[0].slab->data);
    return answer_text(exchange, 200, kJsonType,
                       read_json({exchange.fid,
                                  {data, bytes},
                                  source_name(path),
                                  path == KELP_PATH_VERBS,
                                  Clock::now() - exchange.arrived}));
  }
  if (costs_too_much(exchange.about, bytes)) return answer_too_costly(exchange);
  counters_.reads[path].add();
  counters_.bytes[path].add(bytes);
  write_head(exchange, exchange.partial ? 206 : 200, bytes, path,
             temp_file_of(exchange, bytes, path));
  exchange.body_left = bytes;
  Piece& first = exchange.pieces[0];
  first.bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(bytes, exchange.read.bytes));
  first.ready = bytes != 0;
  exchange.next_read = exchange.begin + first.bytes;
  if (exchange.next_read == exchange.end) return;
  // A read of a part has nothing to compare it with: its bytes may be damaged ones.
  exchange.summed =
      exchange.begin == 0 && exchange.end == exchange.about.total && tells_checksum(exchange.about);
  read_ahead(exchange);
}

/// Empty: the body alone is the answer.
std::string Reads::temp_file_of(const Exchange& exchange, std::uint64_t bytes, kelp_path path) {
  if (temp_files_ == nullptr || exchange.kind != Exchange::Kind::kRead || exchange.partial ||
      bytes < least_file_bytes_ || bytes > exchange.read.bytes || !marked(path)) {
    return {};
  }
  const Slab& slab = *exchange.pieces[0].slab;
  std::string file = temp_files_->put({slab.data, static_cast<std::size_t>(bytes)}, Clock::now());
  (file.empty() ? counters_.temp_refused : counters_.temp_offered).add();
  return file;
}

// ---- bodies in pieces -----------------------------------------------------------------------

void Reads::read_ahead(Exchange& exchange) {
  const std::uint32_t which = 1 - exchange.sending;
  Piece& now = exchange.pieces[exchange.sending];
  Piece& ahead = exchange.pieces[which];
  if (ahead.reading || ahead.ready || exchange.next_read == exchange.end) return;
  // A second slab is for those that have none, where somebody waits.
  if (!waiting_.empty() && (now.ready || now.reading)) return;
  const std::uint32_t most = piece_bytes(exchange.about);
  if (!ring_.has_room(2) || !make_room(ahead, most)) {
    // While a piece is on its way there is time.
    if (now.ready || now.reading || exchange.waits) return;
    exchange.deadline = Clock::now() + kAnswerTime;
    return wait(exchange);
  }
  put_hints(exchange, *ahead.slab);
  exchange.deadline = Clock::now() + kAnswerTime;
  const auto bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(exchange.end - exchange.next_read, most));
  ahead.bytes = bytes;
  ahead.sent = 0;
  ahead.reading = true;
  add(exchange, which == 0 ? Op::kRead0 : Op::kRead1, exchange.next_read, bytes);
  exchange.next_read += bytes;
  ahead.last = exchange.next_read == exchange.end;
  if (!now.ready && !now.reading) exchange.sending = which;
}

void Reads::piece_read(Exchange& exchange, std::uint32_t which, const kelp_completion& done) {
  Piece& piece = exchange.pieces[which];
  if (status_of(done) != KELP_OK || done.bytes != piece.bytes ||
      done.total != exchange.about.total) {
    exchange.broken = true;
    return;
  }
  if (piece.last) {
    exchange.last = which;
    piece.unchecked = true;
  } else {
    piece.reading = false;
    piece.ready = true;
  }
  // The one before the last may come after it, and what is compared is about both.
  Piece& end = exchange.pieces[exchange.last];
  if (!end.unchecked || exchange.pieces[1 - exchange.last].reading) return;
  end.unchecked = false;
  add(exchange, Op::kCheck, 0, kStatBytes);
}

/// The needle is still the one that the head spoke of, so no piece was of another one; and where
/// that can be told, the pieces are the bytes that were once stored.
void Reads::checked(Exchange& exchange, const kelp_completion& done) {
  Piece& piece = exchange.pieces[exchange.last];
  kelp_stat now{};
  if (status_of(done) == KELP_OK) std::memcpy(&now, piece.slab->stat(), sizeof now);
  exchange.broken = status_of(done) != KELP_OK || !same_needle(now, exchange.about) ||
                    (exchange.summed && !has_checksum(exchange));
  piece.reading = false;
  piece.ready = !exchange.broken;
}

/// All of it is sent but for the last piece and the one before it, at most.
bool Reads::has_checksum(const Exchange& exchange) noexcept {
  std::uint32_t crc = exchange.crc;
  const Piece& before = exchange.pieces[1 - exchange.last];
  if (before.ready) crc = crc32c_extend(crc, bytes_of(before));
  crc = crc32c_extend(crc, bytes_of(exchange.pieces[exchange.last]));
  return checksum_matches(exchange.about.crc32c, crc);
}

void Reads::piece_sent(Exchange& exchange) {
  Piece& piece = exchange.pieces[exchange.sending];
  piece.ready = false;
  if (exchange.summed && !piece.last) exchange.crc = crc32c_extend(exchange.crc, bytes_of(piece));
  Piece& other = exchange.pieces[1 - exchange.sending];
  if (exchange.body_left == 0) return;
  const bool wanted = !waiting_.empty() && (other.reading || other.ready);
  if (wanted || piece.slab->bytes < piece_bytes(exchange.about)) {
    ring_.buffers()->give(std::exchange(piece.slab, nullptr));
  }
  if (other.reading || other.ready) {
    exchange.sending = 1 - exchange.sending;
  } else if (other.slab == nullptr) {
    std::swap(other.slab, piece.slab);
  }
  read_ahead(exchange);
}

// ---- the rest -------------------------------------------------------------------------------

void Reads::next_of_benchmark(Exchange& exchange, const kelp_completion* done) {
  if (done != nullptr) {
    ++exchange.done;
    const bool ok = status_of(*done) == KELP_OK;
    exchange.ok += ok ? 1 : 0;
    exchange.over_verbs += ok && path_of(*done) == KELP_PATH_VERBS ? 1 : 0;
    exchange.over_http += ok && path_of(*done) == KELP_PATH_HTTP ? 1 : 0;
    exchange.bytes_read += ok ? done->bytes : 0;
    if (exchange.pieces[0].slab->held || exchange.done == exchange.iterations ||
        Clock::now() >= exchange.deadline) {
      return answer_text(exchange, 200, kJsonType,
                         benchmark_json(exchange, Clock::now() - exchange.arrived));
    }
  }
  add(exchange, Op::kRead0, exchange.offset, static_cast<std::uint32_t>(exchange.size));
}

bool Reads::release(Exchange& exchange) {
  if (exchange.waits) std::erase(waiting_, &exchange);
  exchange.waits = false;
  exchange.orphan = true;
  if (exchange.in_flight != 0) return false;
  for (Piece& piece : exchange.pieces) {
    if (piece.slab != nullptr) ring_.buffers()->give(piece.slab);
    piece = {};
  }
  return true;
}

void Reads::lost(Exchange& exchange) {
  exchange.in_flight = 0;
  for (Piece& piece : exchange.pieces) piece = {};
  if (exchange.orphan) return;
  if (exchange.answering) {
    exchange.broken = exchange.body_left != 0;
  } else {
    answer_error(exchange, 503, "kelpd's workers are gone");
  }
}

}  // namespace kelp::sidecar
