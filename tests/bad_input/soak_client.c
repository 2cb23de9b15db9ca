/* A client that reads one needle over and over, compares every answer with the first, and may be
 * killed at any moment. C11 and kelp.h alone.
 *
 *   soak_client RUN_DIR FID SPIN_US            floods until its input ends; attaches again whenever
 *                                              the daemon is gone. A line for each event.
 *   soak_client RUN_DIR FID SPIN_US R C        C times: attach, R reads, detach
 *
 * Last line: "right <n> other <n> failed <n>". */
#include <inttypes.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kelp.h"

enum { kDepth = 32, kBufferBytes = 64 * 1024 };

static kelp_options options = KELP_OPTIONS_INIT;
static kelp_connection* connection;
static kelp_channel* channel;
static char* buffers;
static char first[kBufferBytes];
static uint32_t first_bytes;
static uint64_t right, other, failed;
static uint32_t in_flight;

static kelp_status open_buffers(void) {
  void* memory = NULL;
  kelp_status status = kelp_channel_open(connection, &channel);
  if (status == KELP_OK) {
    status = kelp_buffer_alloc(connection, (uint64_t)kDepth * kBufferBytes, &memory);
  }
  buffers = memory;
  in_flight = 0;
  return status;
}

static kelp_status attach(void) {
  const kelp_status status = kelp_connect(&options, &connection);
  return status == KELP_OK ? open_buffers() : status;
}

static kelp_status submit(kelp_fid fid, uint64_t slot) {
  kelp_request request = {0};
  request.tag = slot;
  request.fid = fid;
  request.buffer = buffers + slot * kBufferBytes;
  request.length = kBufferBytes;
  const kelp_status status = kelp_submit(channel, &request, 1, NULL);
  if (status == KELP_OK) ++in_flight;
  return status;
}

static void judge(const kelp_completion* done) {
  const char* const bytes = buffers + done->tag * kBufferBytes;
  if (done->status != KELP_OK) {
    ++failed;
    return;
  }
  if (first_bytes == 0) {
    first_bytes = done->bytes;
    memcpy(first, bytes, first_bytes);
  }
  ++*(done->bytes == first_bytes && memcmp(bytes, first, first_bytes) == 0 ? &right : &other);
}

/* `count` reads with kDepth in flight at most; those that still are in flight at the end stay. */
static kelp_status read_many(kelp_fid fid, uint64_t count) {
  kelp_status status = KELP_OK;
  uint64_t submitted = in_flight;
  for (uint64_t slot = in_flight; status == KELP_OK && slot < kDepth && submitted < count; ++slot) {
    status = submit(fid, slot);
    ++submitted;
  }
  uint64_t reaped_in_all = 0;
  while (status == KELP_OK && reaped_in_all < count) {
    kelp_completion done[kDepth];
    uint32_t reaped = 0;
    status = kelp_reap(channel, done, kDepth, 5000000, &reaped);
    for (uint32_t i = 0; i < reaped; ++i) {
      --in_flight;
      ++reaped_in_all;
      judge(&done[i]);
      if (status == KELP_OK && submitted < count) {
        status = submit(fid, done[i].tag);
        ++submitted;
      }
    }
  }
  return status;
}

static int input_ended(void) {
  struct pollfd entry = {0, POLLIN, 0};
  return poll(&entry, 1, 0) != 0;
}

static void say(const char* event) {
  puts(event);
  fflush(stdout);
}

static int attach_again(void) {
  say("disconnected");
  kelp_channel_close(channel);
  while (kelp_reconnect(connection) != KELP_OK) {
    if (input_ended()) return 0;
    nanosleep(&(struct timespec){0, 10000000}, NULL);
  }
  if (open_buffers() != KELP_OK) return 0;
  say("reconnected");
  return 1;
}

static int flood(kelp_fid fid) {
  kelp_status status = attach();
  if (status == KELP_OK) status = read_many(fid, kDepth);
  say("reading");
  while (!input_ended()) {
    if (status == KELP_DISCONNECTED) {
      if (!attach_again()) return 1;
      /* The new daemon has to find its volumes first. */
      do {
        const uint64_t before = failed;
        status = read_many(fid, 1);
        if (failed == before) break;
        failed = before;
      } while (status == KELP_OK && !input_ended());
      if (status == KELP_OK) say("reading");
      continue;
    }
    if (status != KELP_OK) return 1;
    status = read_many(fid, 1000);
  }
  return 0;
}

static int cycles(kelp_fid fid, uint64_t reads, uint64_t count) {
  for (uint64_t i = 0; i < count; ++i) {
    if (attach() != KELP_OK || read_many(fid, reads) != KELP_OK) return 1;
    kelp_close(connection);
  }
  return 0;
}

int main(int argc, char** argv) {
  kelp_fid fid;
  if ((argc != 4 && argc != 6) || kelp_fid_parse(argv[2], &fid) != KELP_OK) return 2;
  options.run_dir = argv[1];
  options.spin_us = (uint32_t)strtoul(argv[3], NULL, 10);
  options.data_bytes = (uint64_t)kDepth * kBufferBytes;
  const int code = argc == 4
                       ? flood(fid)
                       : cycles(fid, strtoull(argv[4], NULL, 10), strtoull(argv[5], NULL, 10));
  if (code != 0) fprintf(stderr, "%s\n", kelp_error_detail());
  printf("right %" PRIu64 " other %" PRIu64 " failed %" PRIu64 "\n", right, other, failed);
  return code;
}
