/* A program of somebody who has libkelp-dev: writes a needle to its standard output.
 *   read_needle FID */
#include <kelp.h>
#include <stdio.h>

enum { CAPACITY = 1 << 20 };

static int fail(const char* what, kelp_status status) {
  fprintf(stderr, "%s: %s: %s\n", what, kelp_status_name(status), kelp_error_detail());
  return 1;
}

int main(int argc, char** argv) {
  kelp_connection* connection = NULL;
  kelp_channel* channel = NULL;
  kelp_completion done;
  kelp_status status;
  void* buffer = NULL;

  if (argc != 2) return 2;
  if ((status = kelp_connect(NULL, &connection)) != KELP_OK) return fail("connect", status);
  if ((status = kelp_channel_open(connection, &channel)) != KELP_OK) return fail("channel", status);
  if ((status = kelp_buffer_alloc(connection, CAPACITY, &buffer)) != KELP_OK)
    return fail("buffer", status);
  if ((status = kelp_read(channel, argv[1], 0, buffer, CAPACITY, 0, &done)) != KELP_OK)
    return fail("read", status);
  if (done.bytes != done.total) return fail("size", KELP_RANGE);
  if (fwrite(buffer, 1, done.bytes, stdout) != done.bytes || fflush(stdout) != 0) return 1;
  kelp_channel_close(channel);
  kelp_close(connection);
  return 0;
}
