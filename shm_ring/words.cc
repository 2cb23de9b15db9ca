// Names and sentences for statuses and paths: what people read in logs, tools and errors.
#include <array>

#include "shm_ring/kelp.h"

namespace {

struct Words {
  kelp_status status;
  const char* name;
  const char* text;
};

constexpr std::array kWords{
    Words{KELP_OK, "ok", "The request succeeded."},
    Words{KELP_NOT_FOUND, "not-found",
          "The volume is served here and holds no such needle: it never did, or it was deleted."},
    Words{KELP_WRONG_COOKIE, "wrong-cookie",
          "The needle exists under another cookie: the file id was altered or guessed."},
    Words{KELP_EXPIRED, "expired", "The needle's time to live has passed."},
    Words{KELP_RANGE, "range", "The offset lies beyond the needle's end."},
    Words{KELP_DENIED, "denied", "A read token is needed, or the one given does not fit."},
    Words{KELP_BROKEN_GZIP, "broken-gzip",
          "The needle is flagged compressed and does not inflate; over HTTP it reads as empty."},
    Words{KELP_INVALID, "invalid", "The daemon could make no sense of the request."},
    Words{KELP_CORRUPT, "corrupt",
          "Id, size or checksum of the record do not fit the index; ask the volume server."},
    Words{KELP_USE_HTTP, "use-http",
          "Only the volume server can answer this one (chunk manifest, erasure-coded or tiered "
          "volume): read it over HTTP."},
    Words{KELP_UNAVAILABLE, "unavailable",
          "The volume is not served here, or not now: read over HTTP, or try again."},
    Words{KELP_DEADLINE, "deadline", "The request's time was up before it was answered."},
    Words{KELP_DISCONNECTED, "disconnected",
          "kelpd is not there, or gone: start it and reconnect."},
    Words{KELP_FORKED, "forked",
          "The connection was inherited through fork(); connect anew in this process."},
    Words{KELP_RING_FULL, "ring-full", "Too many requests in flight: reap completions first."},
    Words{KELP_BAD_BUFFER, "bad-buffer",
          "The buffer does not lie inside one allocation of kelp_buffer_alloc()."},
    Words{KELP_BUFFER_BUSY, "buffer-busy",
          "A read that timed out may still write into this buffer; use another."},
    Words{KELP_BAD_FID, "bad-fid", "Not a file id; one looks like 3,01637037d6."},
    Words{KELP_NO_MEMORY, "no-memory", "No space left in the data area, or in this process."},
    Words{KELP_NO_CHANNEL, "no-channel",
          "Every channel is open already: ask for more in kelp_options.channels."},
    Words{KELP_VERSION, "version", "Library and daemon speak no common version: upgrade one."},
    Words{KELP_REFUSED, "refused", "The daemon does not admit this user, or has no room left."},
    Words{KELP_SYSTEM, "system", "A system call failed."},
    Words{KELP_USAGE, "usage", "The call makes no sense: a null pointer or an unknown option."},
};

constexpr Words kUnknown{KELP_OK, "unknown", "A status this library does not know."};

const Words& words_of(kelp_status status) {
  for (const Words& words : kWords) {
    if (words.status == status) return words;
  }
  return kUnknown;
}

}  // namespace

const char* kelp_status_name(kelp_status status) {
  return words_of(status).name;
}
const char* kelp_status_text(kelp_status status) {
  return words_of(status).text;
}

const char* kelp_path_name(kelp_path path) {
  switch (path) {
    case KELP_PATH_NONE:
      return "none";
    case KELP_PATH_LOCAL:
      return "local";
    case KELP_PATH_CACHE:
      return "cache";
    case KELP_PATH_VERBS:
      return "verbs";
    case KELP_PATH_TCP:
      return "tcp";
    case KELP_PATH_HTTP:
      return "http";
  }
  return "unknown";
}
