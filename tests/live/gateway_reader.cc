// Reads objects through the ring and compares their bytes with what they ought to be.
//   test_gateway_reader RUN_DIR LISTING TIMEOUT_MS              each object once
//   test_gateway_reader RUN_DIR LISTING TIMEOUT_MS LOG RATE     RATE reads a second, until stdin
//   ends
// LISTING has a line "FID<TAB>FILE" per object; FILE holds its bytes. Once: one JSON line per
// object on stdout. Steadily: each read begins when it is due, whatever became of those before it,
// and LOG gets a line "SUBMITTED_NS DONE_NS OBJECT STATUS PATH RIGHT" per read, in the order of the
// answers. Times are CLOCK_MONOTONIC, in nanoseconds; OBJECT counts the lines of LISTING from 0. A
// read that is due while too many are in flight is logged as "not-submitted".
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <utility>
#include <vector>

#include "live/objects.h"
#include "shm_ring/kelp.h"

namespace live = kelp::live;
using live::now_ns;
using live::Object;

namespace {

constexpr std::uint32_t kMostInFlight = 4096;
constexpr std::uint64_t kDataBytes = 256 << 20;

/// The largest of them.
std::uint32_t capacity_for(const std::vector<Object>& objects) {
  std::uint32_t largest = 0;
  for (const Object& object : objects) largest = std::max(largest, live::capacity_for(object));
  return largest;
}

bool stdin_open() {
  pollfd entry{STDIN_FILENO, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 0;
}

class Reader {
 public:
  Reader(const char* run_dir, std::vector<Object> objects, std::uint32_t timeout_ms, bool steadily)
      : objects_(std::move(objects)),
        capacity_(capacity_for(objects_)),
        timeout_us_(timeout_ms * 1000) {
    const std::uint32_t slots = steadily ? static_cast<std::uint32_t>(std::min<std::uint64_t>(
                                               kMostInFlight, kDataBytes / capacity_))
                                         : 1;
    kelp_options options = KELP_OPTIONS_INIT;
    options.run_dir = run_dir;
    options.name = "gateway_reader";
    options.ring_entries = kMostInFlight;
    options.data_bytes = std::uint64_t{slots} * capacity_ + (1 << 20);
    options.spin_us = 0;  // this program shares its CPU with the servers
    live::give_up_unless_ok("attach", kelp_connect(&options, &connection_));
    live::give_up_unless_ok("channel", kelp_channel_open(connection_, &channel_));
    for (std::uint32_t i = 0; i < slots; ++i) {
      void* buffer = nullptr;
      live::give_up_unless_ok("kelp_buffer_alloc",
                              kelp_buffer_alloc(connection_, capacity_, &buffer));
      slots_.push_back({static_cast<char*>(buffer), 0, 0});
      free_.push_back(i);
    }
  }

  ~Reader() {
    kelp_channel_close(channel_);
    kelp_close(connection_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  void once() {
    for (const Object& object : objects_) {
      kelp_completion done{};
      kelp_request request = request_for(object, 0);
      live::give_up_unless_ok("kelp_read_many", kelp_read_many(channel_, &request, 1, &done));
      std::printf(
          "{\"fid\": \"%s\", \"status\": \"%s\", \"path\": \"%s\", \"bytes\": %u, \"total\": %llu, "
          "\"right\": %s}\n",
          object.text.c_str(), live::status_of(done), live::path_of(done), done.bytes,
          static_cast<unsigned long long>(done.total),
          live::is_right(object, done, slots_[0].buffer) ? "true" : "false");
    }
  }

  void steadily(std::FILE* log, int rate) {
    const long long period = 1'000'000'000 / rate;
    long long due = now_ns();
    for (std::uint64_t turn = 0; stdin_open(); ++turn) {
      for (; due <= now_ns(); due += period) submit(log);
      reap(log, static_cast<std::uint64_t>(std::max(0ll, due - now_ns()) / 1000));
      if (turn % 64 == 0) std::fflush(log);
    }
    while (free_.size() < slots_.size()) reap(log, timeout_us_);
  }

 private:
  struct Slot {
    char* buffer;
    std::size_t object;
    long long submitted_ns;
  };

  kelp_request request_for(const Object& object, std::uint32_t slot) const {
    kelp_request request{};
    request.tag = slot;
    request.fid = object.fid;
    request.buffer = slots_[slot].buffer;
    request.length = capacity_;
    request.timeout_us = timeout_us_;
    return request;
  }

  void submit(std::FILE* log) {
    const std::size_t object = next_++ % objects_.size();
    const long long now = now_ns();
    if (!free_.empty()) {
      const std::uint32_t slot = free_.front();
      free_.pop_front();
      const kelp_request request = request_for(objects_[object], slot);
      const kelp_status status = kelp_submit(channel_, &request, 1, nullptr);
      if (status == KELP_OK) {
        slots_[slot].object = object;
        slots_[slot].submitted_ns = now;
        return;
      }
      free_.push_back(slot);
      if (status != KELP_RING_FULL && status != KELP_BUFFER_BUSY) {
        live::give_up_unless_ok("kelp_submit", status);
      }
    }
    std::fprintf(log, "%lld %lld %zu not-submitted none 1\n", now, now, object);
  }

  void reap(std::FILE* log, std::uint64_t wait_us) {
    kelp_completion done[64];
    std::uint32_t reaped = 0;
    live::give_up_unless_ok("kelp_reap", kelp_reap(channel_, done, 64, wait_us, &reaped));
    const long long now = now_ns();
    for (std::uint32_t i = 0; i < reaped; ++i) {
      const auto slot = static_cast<std::uint32_t>(done[i].tag);
      const Slot& read = slots_[slot];
      std::fprintf(log, "%lld %lld %zu %s %s %d\n", read.submitted_ns, now, read.object,
                   live::status_of(done[i]), live::path_of(done[i]),
                   live::is_right(objects_[read.object], done[i], read.buffer));
      free_.push_back(slot);
    }
  }

  const std::vector<Object> objects_;
  const std::uint32_t capacity_;
  const std::uint32_t timeout_us_;
  kelp_connection* connection_ = nullptr;
  kelp_channel* channel_ = nullptr;
  std::vector<Slot> slots_;
  std::deque<std::uint32_t> free_;  // the one that waits longest comes next
  std::size_t next_ = 0;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4 && argc != 6) return 2;
  const bool steadily = argc == 6;
  const int timeout_ms = std::atoi(argv[3]);
  Reader reader(argv[1], live::load_objects(argv[2]), static_cast<std::uint32_t>(timeout_ms),
                steadily);
  if (!steadily) {
    reader.once();
    return 0;
  }
  std::FILE* const log = std::fopen(argv[4], "w");
  const int rate = std::atoi(argv[5]);
  if (log == nullptr || rate < 1) return 2;
  reader.steadily(log, rate);
  return std::fclose(log) == 0 ? 0 : 1;
}
