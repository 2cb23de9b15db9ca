/* Reads through the C ABI what run.py asks for: C11, kelp.h and nothing else of Kelp.
 *
 *   fixture_rows RUN_DIR
 *
 * Input: lines "<fid> <offset> <length>", length at most kBufferBytes. Output for each: a line
 * "<status> <path> <bytes> <total>" and then that many raw bytes. Ends with its input. */
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>

#include "kelp.h"

enum { kBufferBytes = 1 << 20 };

static int failed(const char* call, kelp_status status) {
  fprintf(stderr, "%s answered %s: %s\n", call, kelp_status_name(status), kelp_error_detail());
  return 1;
}

static int answer_all(kelp_channel* channel, void* buffer) {
  char fid[512];
  uint64_t offset;
  uint32_t length;
  while (scanf("%511s %" SCNu64 " %" SCNu32, fid, &offset, &length) == 3) {
    kelp_completion done = {0};
    const kelp_status status = kelp_read(channel, fid, offset, buffer, length, 0, &done);
    if (status != KELP_OK) done.bytes = 0;
    printf("%s %s %" PRIu32 " %" PRIu64 "\n", kelp_status_name(status),
           kelp_path_name((kelp_path)done.path), done.bytes, done.total);
    fwrite(buffer, 1, done.bytes, stdout);
    fflush(stdout);
  }
  return ferror(stdout) != 0;
}

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: fixture_rows RUN_DIR\n");
    return 2;
  }
  kelp_options options = KELP_OPTIONS_INIT;
  options.run_dir = argv[1];
  kelp_connection* connection = NULL;
  kelp_channel* channel = NULL;
  void* buffer = NULL;
  kelp_status status = kelp_connect(&options, &connection);
  if (status != KELP_OK) return failed("kelp_connect", status);
  status = kelp_channel_open(connection, &channel);
  if (status != KELP_OK) return failed("kelp_channel_open", status);
  status = kelp_buffer_alloc(connection, kBufferBytes, &buffer);
  if (status != KELP_OK) return failed("kelp_buffer_alloc", status);
  const int result = answer_all(channel, buffer);
  kelp_channel_close(channel);
  kelp_close(connection);
  return result;
}
