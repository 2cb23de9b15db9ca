// One thread's reads, through the ring or over HTTP: keeps `depth` of them in flight, times each
// from its submission to its answer, compares bytes, and counts. A closed loop: a read begins when
// another has ended, so a stall is seen by as many reads as were in flight (docs/bench.md).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shm_ring/histogram.h"
#include "shm_ring/ticks.h"
#include "tools/bench/http_connection.h"
#include "tools/bench/objects.h"
#include "tools/failure.h"

namespace kelp::bench {

/// What reads ended with. `latency` may be looked at by others meanwhile, the rest afterwards.
struct Tally {
  Histogram latency;  ///< nanoseconds, of the reads that were answered with bytes
  std::uint64_t latency_sum_ns = 0;
  std::uint64_t bytes = 0;
  std::uint64_t crc_verified = 0;        ///< answers whose whole content went through the checksum
  std::uint64_t truncated = 0;           ///< answers cut by the buffer's size
  std::uint64_t wrong = 0;               ///< answers with bytes that are not the object's
  std::string first_wrong;               ///< the first such object
  std::array<std::uint64_t, 8> paths{};  ///< answers by kelp_path
  std::map<std::string, std::uint64_t> errors;  ///< by status: "not-found", "http-500"

  std::uint64_t error_count() const;
  void add(const Tally& other);
};

/// When a reader begins no further read. It returns when those in flight have ended.
struct Stop {
  Ticks until = std::numeric_limits<Ticks>::max();
  std::uint64_t reads = std::numeric_limits<std::uint64_t>::max();
  const std::atomic<bool>* interrupted = nullptr;  ///< set by whoever wants an end

  bool reached(std::uint64_t begun, Ticks now) const noexcept {
    return begun >= reads || now >= until || interrupted->load(std::memory_order_relaxed);
  }
};

/// What all readers of a run share, and only look at.
struct Work {
  std::vector<Object> objects;
  std::unique_ptr<ZipfTable> zipf;
  std::uint64_t buffer_bytes = 0;  ///< of one read
  bool verify = false;

  /// The bytes the next read of `object` asks for.
  Extent extent(const RangePlan& plan, const Object& object, Random& random) const noexcept;
};

/// One thread at a time; not necessarily always the same.
class Reader {
 public:
  virtual ~Reader() = default;
  /// Reads until `stop`, adding to `tally`. A failure says why this way of reading is of no
  /// further use; an object that cannot be read is none.
  virtual Outcome<void> run(const Stop& stop, Tally& tally) = 0;
};

/// Through a channel of its own.
class KelpReader : public Reader {
 public:
  /// `options` and `work` outlive the reader; so does `connection`, whose data area has room.
  static Outcome<std::unique_ptr<Reader>> open(kelp_connection* connection, const Options& options,
                                               const Work& work, std::uint32_t thread);
  ~KelpReader() override;
  Outcome<void> run(const Stop& stop, Tally& tally) override;

 private:
  /// A read that may be in flight: its tag is its place in slots_.
  struct Slot {
    void* buffer = nullptr;
    const Object* object = nullptr;
    Extent extent{};
    Ticks begun = 0;
  };

  KelpReader(kelp_connection* connection, kelp_channel* channel, const Options& options,
             const Work& work, std::uint32_t thread);
  Outcome<void> submit(std::uint32_t count);
  Outcome<std::uint32_t> reap(Tally& tally);
  void take(const kelp_completion& done, Ticks now, Tally& tally);
  bool replace_buffer(Slot& slot);
  std::size_t usable_slots() const noexcept { return slots_.size() - lost_slots_; }

  kelp_connection* connection_;
  kelp_channel* channel_;
  const Options& options_;
  const Work& work_;
  Order order_;
  std::vector<Slot> slots_;
  std::vector<std::uint32_t> free_;  // slots without a read
  std::size_t lost_slots_ = 0;       // their buffers are held, and there is no room for others
  std::vector<kelp_request> requests_;
  std::vector<kelp_completion> completions_;
};

/// Over `depth` keep-alive connections.
class HttpReader : public Reader {
 public:
  static Outcome<std::unique_ptr<Reader>> open(const std::string& server, const Options& options,
                                               const Work& work, std::uint32_t thread);
  Outcome<void> run(const Stop& stop, Tally& tally) override;

 private:
  struct Slot {
    HttpConnection connection;
    const Object* object = nullptr;
    Extent extent{};
    Ticks begun = 0;
  };

  HttpReader(const Options& options, const Work& work, std::uint32_t thread);
  Outcome<void> begin(Slot& slot);
  Outcome<void> finish(Slot& slot, Tally& tally);
  /// Whole objects are asked for without a Range header, as any client would.
  bool asks_for_ranges() const noexcept { return options_.range.length + options_.size != 0; }
  Outcome<void> run_one(const Stop& stop, Tally& tally);
  Outcome<void> run_many(const Stop& stop, Tally& tally);

  const Options& options_;
  const Work& work_;
  Order order_;
  std::vector<Slot> slots_;
  std::string range_;  // header of the request being built
};

}  // namespace kelp::bench
