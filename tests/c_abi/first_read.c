/* A stranger's first program: reads one needle, looks at it, and says what it got.
 *   first_read RUN_DIR FID EXPECTED_BYTES */
#include <kelp.h>
#include <stdio.h>
#include <stdlib.h>

static int fail(const char* what, kelp_status status) {
  fprintf(stderr, "%s: %s: %s\n", what, kelp_status_name(status), kelp_error_detail());
  return 1;
}

int main(int argc, char** argv) {
  kelp_options options = KELP_OPTIONS_INIT;
  kelp_connection* connection = NULL;
  kelp_channel* channel = NULL;
  kelp_completion done;
  kelp_request request = {0};
  kelp_stat stat;
  kelp_status status;
  void* buffer = NULL;
  uint32_t accepted = 0;
  uint32_t reaped = 0;

  if (argc != 4) return 2;
  options.run_dir = argv[1];
  options.name = "first_read";
  if ((status = kelp_connect(&options, &connection)) != KELP_OK) return fail("connect", status);
  if ((status = kelp_channel_open(connection, &channel)) != KELP_OK) return fail("channel", status);
  if ((status = kelp_buffer_alloc(connection, 65536, &buffer)) != KELP_OK)
    return fail("buffer", status);

  if ((status = kelp_read(channel, argv[2], 0, buffer, 65536, 0, &done)) != KELP_OK)
    return fail("read", status);
  if (done.bytes != (uint32_t)atoi(argv[3]) || done.total != done.bytes)
    return fail("size", KELP_CORRUPT);
  if (done.path != KELP_PATH_LOCAL || (done.flags & KELP_FLAG_CRC_VERIFIED) == 0)
    return fail("label", KELP_CORRUPT);

  if ((status = kelp_fid_parse(argv[2], &request.fid)) != KELP_OK) return fail("fid", status);
  request.tag = 42;
  request.op = KELP_OP_STAT;
  request.buffer = buffer;
  request.length = 65536;
  if ((status = kelp_submit(channel, &request, 1, &accepted)) != KELP_OK || accepted != 1)
    return fail("submit", status);
  if ((status = kelp_reap(channel, &done, 1, 5000000, &reaped)) != KELP_OK || reaped != 1)
    return fail("reap", status);
  if (done.tag != 42 || done.status != KELP_OK) return fail("stat", (kelp_status)done.status);
  stat = *(const kelp_stat*)buffer;
  if (stat.total != (uint64_t)atoi(argv[3])) return fail("stat's size", KELP_CORRUPT);

  kelp_channel_close(channel);
  kelp_close(connection);
  printf("%s: %u bytes, modified %llu, libkelp %s\n", argv[2], (unsigned)stat.total,
         (unsigned long long)stat.modified_s, kelp_version());
  return 0;
}
