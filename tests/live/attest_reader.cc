// Reads one needle over and over, and says on stdout, as JSON lines, when the answer changes and
// when a file of its volume is closed by a program that had it open for writing. Times are
// CLOCK_MONOTONIC, in nanoseconds. Ends with its stdin.
//   test_attest_reader RUN_DIR FID EXPECTED_FILE WATCHED_FILE...
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <fstream>
#include <iterator>
#include <string>

#include "shm_ring/kelp.h"

namespace {

constexpr std::uint32_t kBufferBytes = 1 << 20;

long long now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1'000'000'000ll + now.tv_nsec;
}

int fail(const char* what, kelp_status status) {
  std::fprintf(stderr, "%s: %s: %s\n", what, kelp_status_name(status), kelp_error_detail());
  return 1;
}

bool something_closed(int inotify) {
  alignas(inotify_event) std::array<char, 4096> events;
  bool any = false;
  while (::read(inotify, events.data(), events.size()) > 0) any = true;
  return any;
}

bool stdin_open() {
  pollfd entry{STDIN_FILENO, POLLIN, 0};
  return ::poll(&entry, 1, 0) == 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  std::ifstream file(argv[3], std::ios::binary);
  const std::string expected{std::istreambuf_iterator<char>(file), {}};
  const int inotify = ::inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  for (int i = 4; i < argc; ++i) {
    if (::inotify_add_watch(inotify, argv[i], IN_CLOSE_WRITE) < 0) return 3;
  }
  kelp_options options = KELP_OPTIONS_INIT;
  options.run_dir = argv[1];
  options.name = "attest_reader";
  kelp_connection* connection = nullptr;
  kelp_channel* channel = nullptr;
  void* buffer = nullptr;
  kelp_status status = kelp_connect(&options, &connection);
  if (status == KELP_OK) status = kelp_channel_open(connection, &channel);
  if (status == KELP_OK) status = kelp_buffer_alloc(connection, kBufferBytes, &buffer);
  if (status != KELP_OK) return fail("attach", status);
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);

  int last = -1;
  long long last_submitted = 0;
  while (stdin_open()) {
    const bool closed = something_closed(inotify);
    const long long submitted = now_ns();
    kelp_completion done{};
    status = kelp_read(channel, argv[2], 0, buffer, kBufferBytes, 1'000'000, &done);
    const long long ended = now_ns();
    const bool right =
        status != KELP_OK || (done.bytes == expected.size() &&
                              std::memcmp(buffer, expected.data(), expected.size()) == 0);
    if (!right) std::printf("{\"event\": \"wrong\", \"submitted_ns\": %lld}\n", submitted);
    // "next": the answer to the first read submitted after the close could be seen.
    if (closed) {
      std::printf("{\"event\": \"closed\", \"seen_ns\": %lld, \"next\": \"%s\"}\n", submitted,
                  kelp_status_name(status));
    }
    if (status != last) {
      std::printf(
          "{\"event\": \"answer\", \"status\": \"%s\", \"submitted_ns\": %lld, \"done_ns\": %lld, "
          "\"last_before_ns\": %lld}\n",
          kelp_status_name(status), submitted, ended, last_submitted);
      last = status;
    }
    last_submitted = submitted;
    ::usleep(50);
  }
  kelp_channel_close(channel);
  kelp_close(connection);
  return 0;
}
