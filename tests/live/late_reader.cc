// Reads into numbered buffers, and watches that nothing lands in one after its read has ended.
//   test_late_reader RUN_DIR LISTING BUFFERS
// LISTING has a line "FID<TAB>FILE" per object; FILE holds its bytes. Buffer i is for object i
// modulo their number. Commands come on stdin, a line each; answers are JSON lines on stdout:
//   read FIRST COUNT TIMEOUT_MS   into those buffers, all at once. First {"submitted": COUNT}, and
//                                 when the last has ended, how they did, and how many of these
//                                 buffers had changed before they were used again
//   check                         how many buffers are not as this program left them
// A buffer whose read has ended is filled with a pattern at once, and is to keep it. One that is
// held (KELP_FLAG_BUFFER_HELD) is given back, and another taken in its place: memory that
// kelp_buffer_alloc() hands out is nobody else's any more. Ends with its stdin.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "live/objects.h"
#include "shm_ring/kelp.h"

namespace live = kelp::live;
using live::give_up_unless_ok;
using live::now_ns;
using live::Object;

namespace {

constexpr std::uint32_t kMostInFlight = 1024;
/// For what is taken in the place of held buffers.
constexpr std::uint64_t kSpareBytes = 128 << 20;
constexpr std::uint64_t kReapUs = 100'000;

struct Buffer {
  std::uint64_t* words = nullptr;
  std::uint64_t turn = 0;  // the pattern's
  long long submitted_ns = 0;
};

struct Ends {
  std::uint32_t ended = 0;
  std::uint32_t wrong = 0;
  std::uint32_t held = 0;
  std::uint32_t changed = 0;
  double longest_ms = 0;
  std::map<std::string, std::uint32_t> ways;  // "ok http", "deadline none"
};

std::uint64_t pattern_of(std::size_t buffer, std::uint64_t turn, std::size_t word) {
  return (buffer << 40 ^ turn << 20 ^ word) * 0x9e3779b97f4a7c15ULL;
}

class Reader {
 public:
  Reader(const char* run_dir, const char* listing, std::size_t buffers)
      : objects_(live::load_objects(listing)), buffers_(buffers) {
    kelp_options options = KELP_OPTIONS_INIT;
    options.run_dir = run_dir;
    options.name = "late_reader";
    options.ring_entries = kMostInFlight;
    options.data_bytes = kSpareBytes;
    options.spin_us = 0;  // this program shares its CPU with the servers
    for (std::size_t i = 0; i < buffers; ++i) options.data_bytes += capacity(i);
    give_up_unless_ok("attach", kelp_connect(&options, &connection_));
    give_up_unless_ok("channel", kelp_channel_open(connection_, &channel_));
    for (std::size_t i = 0; i < buffers; ++i) {
      take(i);
      fill(i);
    }
  }

  ~Reader() {
    kelp_channel_close(channel_);
    kelp_close(connection_);
  }
  Reader(const Reader&) = delete;
  Reader& operator=(const Reader&) = delete;

  std::size_t buffers() const { return buffers_.size(); }

  Ends read(std::size_t first, std::uint32_t count, std::uint32_t timeout_ms) {
    Ends ends;
    ends.changed = changed(first, count);
    for (std::size_t i = first; i < first + count; ++i) submit(i, timeout_ms * 1000);
    std::printf("{\"submitted\": %u}\n", count);
    std::fflush(stdout);
    while (ends.ended < count) reap(ends);
    return ends;
  }

  std::uint32_t changed(std::size_t first, std::size_t count) const {
    std::uint32_t found = 0;
    for (std::size_t i = first; i < first + count; ++i) found += !keeps_pattern(i);
    return found;
  }

 private:
  const Object& object_of(std::size_t buffer) const { return objects_[buffer % objects_.size()]; }

  std::uint32_t capacity(std::size_t buffer) const { return live::capacity_for(object_of(buffer)); }

  void take(std::size_t buffer) {
    void* memory = nullptr;
    give_up_unless_ok("kelp_buffer_alloc",
                      kelp_buffer_alloc(connection_, capacity(buffer), &memory));
    buffers_[buffer].words = static_cast<std::uint64_t*>(memory);
  }

  void fill(std::size_t buffer) {
    Buffer& one = buffers_[buffer];
    ++one.turn;
    for (std::size_t i = 0; i < capacity(buffer) / sizeof *one.words; ++i)
      one.words[i] = pattern_of(buffer, one.turn, i);
  }

  bool keeps_pattern(std::size_t buffer) const {
    const Buffer& one = buffers_[buffer];
    for (std::size_t i = 0; i < capacity(buffer) / sizeof *one.words; ++i) {
      if (one.words[i] != pattern_of(buffer, one.turn, i)) return false;
    }
    return true;
  }

  void submit(std::size_t buffer, std::uint32_t timeout_us) {
    kelp_request request{};
    request.tag = buffer;
    request.fid = object_of(buffer).fid;
    request.buffer = buffers_[buffer].words;
    request.length = capacity(buffer);
    request.timeout_us = timeout_us;
    buffers_[buffer].submitted_ns = now_ns();
    give_up_unless_ok("kelp_submit", kelp_submit(channel_, &request, 1, nullptr));
  }

  void reap(Ends& ends) {
    std::array<kelp_completion, 64> done;
    std::uint32_t reaped = 0;
    give_up_unless_ok("kelp_reap", kelp_reap(channel_, done.data(), done.size(), kReapUs, &reaped));
    const long long now = now_ns();
    for (std::uint32_t i = 0; i < reaped; ++i) end(done[i], now, ends);
  }

  void end(const kelp_completion& done, long long now, Ends& ends) {
    const std::size_t buffer = done.tag;
    ++ends.ended;
    ends.wrong += !live::is_right(object_of(buffer), done, buffers_[buffer].words);
    const double took_ms = static_cast<double>(now - buffers_[buffer].submitted_ns) / 1e6;
    ends.longest_ms = std::max(ends.longest_ms, took_ms);
    ++ends.ways[std::string(live::status_of(done)) + " " + live::path_of(done)];
    if ((done.flags & KELP_FLAG_BUFFER_HELD) != 0) {
      ++ends.held;
      give_up_unless_ok("kelp_buffer_free", kelp_buffer_free(connection_, buffers_[buffer].words));
      take(buffer);
    }
    fill(buffer);
  }

  const std::vector<Object> objects_;
  kelp_connection* connection_ = nullptr;
  kelp_channel* channel_ = nullptr;
  std::vector<Buffer> buffers_;
};

void print(const Ends& ends) {
  std::printf("{\"reads\": %u, \"wrong\": %u, \"held\": %u, \"changed\": %u, \"longest_ms\": %.3f",
              ends.ended, ends.wrong, ends.held, ends.changed, ends.longest_ms);
  const char* before = ", \"ends\": {";
  for (const auto& [way, count] : ends.ways) {
    std::printf("%s\"%s\": %u", before, way.c_str(), count);
    before = ", ";
  }
  std::printf("}}\n");
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  Reader reader(argv[1], argv[2], std::strtoul(argv[3], nullptr, 10));
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command;
    std::size_t first = 0;
    std::uint32_t count = 0;
    std::uint32_t timeout_ms = 0;
    words >> command >> first >> count >> timeout_ms;
    if (command == "read" && words && count > 0 && count <= kMostInFlight &&
        first + count <= reader.buffers()) {
      print(reader.read(first, count, timeout_ms));
    } else if (command == "check") {
      std::printf("{\"buffers\": %zu, \"changed\": %u}\n", reader.buffers(),
                  reader.changed(0, reader.buffers()));
    } else {
      return 2;
    }
    std::fflush(stdout);
  }
  return 0;
}
