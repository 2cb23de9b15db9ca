// Whether an answer of Kelp is right, given what weed last acknowledged; and the counts of that. A
// Tally belongs to one thread; they are added up at the end.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "bench/kelp_client.h"
#include "live/content.h"
#include "shm_ring/kelp.h"

namespace kelp::live {

using Clock = std::chrono::steady_clock;

/// How long a read may go unanswered.
constexpr std::chrono::seconds kPatience{10};

enum class Verdict {
  kRight,
  kAgain,  ///< no answer yet: the caller would ask weed; we ask again, with a deadline
  kStale,  ///< what was true before the last acknowledgement
  kWrong,  ///< what was never true
};

struct Range {
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
};

inline Verdict judge(const Pool& pool, const Content& now, const Content& before, Range range,
                     const kelp_completion& done, std::span<const char> buffer) {
  switch (done.status) {
    case KELP_UNAVAILABLE:
    case KELP_CORRUPT:
    case KELP_USE_HTTP:
    case KELP_DEADLINE:
      return Verdict::kAgain;
    case KELP_NOT_FOUND:
      return now.exists ? Verdict::kStale : Verdict::kRight;
    case KELP_OK:
      break;
    default:
      return Verdict::kWrong;
  }
  const auto is = [&](const Content& content) {
    return content.exists && done.total == content.bytes && range.offset <= content.bytes &&
           done.bytes == std::min<std::uint64_t>(range.length, content.bytes - range.offset) &&
           pool.matches(content, range.offset, buffer.first(done.bytes));
  };
  if (is(now)) return Verdict::kRight;
  return is(before) || !now.exists ? Verdict::kStale : Verdict::kWrong;
}

struct Tally {
  std::uint64_t stored = 0, overwritten = 0, deleted = 0, revived = 0, writes_repeated = 0;
  std::uint64_t cookies_lost = 0;     ///< writes weed refuses, see lost_its_cookie()
  std::uint64_t reads_after_ack = 0;  ///< by a writer, straight after the acknowledgement
  std::uint64_t reads_of_others = 0;  ///< by a watcher, of objects nobody was changing
  std::uint64_t reads_overlapped =
      0;  ///< by a watcher; the object changed meanwhile, so not judged
  std::uint64_t stale = 0, wrong = 0, never = 0;
  std::uint64_t reads_repeated = 0;               ///< reads that were not answered at once
  std::array<std::uint64_t, 256> repeated_for{};  ///< answers that led to a repetition, by status
  double longest_wait_ms = 0;                     ///< until a repeated read was answered
  std::vector<std::string> complaints;            ///< the first few failures

  void complain(std::string what) {
    if (complaints.size() < 5) complaints.push_back(std::move(what));
  }

  void waited(Clock::duration time) {
    longest_wait_ms =
        std::max(longest_wait_ms, std::chrono::duration<double, std::milli>(time).count());
  }

  void count(Verdict verdict, const std::string& fid, const Content& now,
             const kelp_completion& done) {
    if (verdict == Verdict::kRight) return;
    if (verdict == Verdict::kAgain) ++never;
    if (verdict == Verdict::kStale) ++stale;
    if (verdict == Verdict::kWrong) ++wrong;
    constexpr std::array kNames{"right", "never answered", "stale", "wrong"};
    complain(std::string(kNames[static_cast<std::size_t>(verdict)]) + ": " + fid +
             ", acknowledged " +
             (now.exists ? std::to_string(now.bytes) + " bytes" : "as deleted") +
             ", Kelp answered " + kelp_status_name(static_cast<kelp_status>(done.status)) + ", " +
             std::to_string(done.bytes) + " of " + std::to_string(done.total) + " bytes");
  }

  void add(const Tally& other) {
    stored += other.stored;
    overwritten += other.overwritten;
    deleted += other.deleted;
    revived += other.revived;
    cookies_lost += other.cookies_lost;
    writes_repeated += other.writes_repeated;
    reads_after_ack += other.reads_after_ack;
    reads_of_others += other.reads_of_others;
    reads_overlapped += other.reads_overlapped;
    stale += other.stale;
    wrong += other.wrong;
    never += other.never;
    reads_repeated += other.reads_repeated;
    for (std::size_t i = 0; i < repeated_for.size(); ++i) repeated_for[i] += other.repeated_for[i];
    longest_wait_ms = std::max(longest_wait_ms, other.longest_wait_ms);
    for (const std::string& one : other.complaints) complain(one);
  }
};

/// Reads until there is an answer to judge, for at most kPatience.
inline Verdict read_and_judge(bench::KelpClient& kelp, const Pool& pool, const std::string& fid,
                              const Content& now, const Content& before, Range range,
                              Tally& tally) {
  const Clock::time_point started = Clock::now();
  kelp_completion done;
  for (bool first = true;; first = false) {
    const kelp_status status = kelp.read(fid.c_str(), range.offset, range.length, done);
    done.status = static_cast<std::uint8_t>(status);  // also those that no completion carries
    const Verdict verdict = judge(pool, now, before, range, done, kelp.buffer());
    const Clock::duration waited = Clock::now() - started;
    if (verdict != Verdict::kAgain || waited > kPatience) {
      if (!first) tally.waited(waited);
      tally.count(verdict, fid, now, done);
      return verdict;
    }
    if (first) ++tally.reads_repeated;
    ++tally.repeated_for[done.status];
  }
}

}  // namespace kelp::live
