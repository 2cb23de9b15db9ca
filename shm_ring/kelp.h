/* SPDX-License-Identifier: Apache-2.0
 *
 * kelp.h: read SeaweedFS needles into your own memory, through shared-memory rings.
 *
 * A program connects to a running kelpd, opens one channel per thread, takes buffers from the
 * data area it shares with the daemon, and submits reads. While both sides poll, a read costs no
 * system call and no copy in user space: the bytes land in the buffer.
 *
 *   kelp_connection* conn;   kelp_channel* channel;   void* buffer;   kelp_completion done;
 *   kelp_connect(NULL, &conn);
 *   kelp_channel_open(conn, &channel);
 *   kelp_buffer_alloc(conn, 1 << 20, &buffer);
 *   kelp_read(channel, "3,01637037d6", 0, buffer, 1 << 20, 0, &done);
 *   // done.status == KELP_OK: done.bytes bytes in buffer, done.total bytes in the needle
 *
 * Threads: a connection may be used by any number of threads at once; a channel by one thread at
 * a time. Nothing here throws, aborts, installs a signal handler or starts a thread.
 * Errors: every function answers a kelp_status; kelp_error_detail() has the sentence.
 * fork(): the child owns nothing of the parent's connection. Its calls answer KELP_FORKED; it
 * may kelp_close() what it inherited (which only frees memory) and connect anew.
 * ABI: reserved fields are 0; kelp_options starts with its own size.
 */
#ifndef KELP_H
#define KELP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KELP_API __attribute__((visibility("default")))
#else
#define KELP_API
#endif

/* The version of this header. A library of the same major version works with it. */
#define KELP_VERSION_MAJOR 0
#define KELP_VERSION_MINOR 1

/* What a read, or a call, ended with. Values below 64 travel in completions. */
typedef enum kelp_status {
  /* Final: no other way of reading would answer differently. */
  KELP_OK = 0,
  KELP_NOT_FOUND = 1,    /* the volume is served here and holds no such needle, or it is deleted */
  KELP_WRONG_COOKIE = 2, /* the needle exists under another cookie */
  KELP_EXPIRED = 3,      /* the needle's TTL has passed */
  KELP_RANGE = 4,        /* offset lies beyond the needle's end */
  KELP_DENIED = 5,       /* a read token is needed, or this one does not fit */
  KELP_BROKEN_GZIP = 6,  /* flagged compressed, and does not inflate */
  KELP_INVALID = 7,      /* the request makes no sense: the detail says why */

  /* The read may succeed another way (the volume server over HTTP). */
  KELP_CORRUPT = 16,     /* id, size or checksum do not fit the index */
  KELP_USE_HTTP = 17,    /* chunk manifest, erasure-coded, tiered: only the server can answer */
  KELP_UNAVAILABLE = 18, /* the volume is not served here now */

  /* The caller's time was up. With KELP_FLAG_BUFFER_HELD bytes may still land in the buffer. */
  KELP_DEADLINE = 24,

  /* Of this library, never in a completion of the daemon. */
  KELP_DISCONNECTED = 64, /* the daemon is gone: kelp_reconnect() */
  KELP_FORKED = 65,       /* this process inherited the connection through fork() */
  KELP_RING_FULL = 66,    /* no space for the completion: reap first */
  KELP_BAD_BUFFER = 67,   /* not inside one allocation of kelp_buffer_alloc() */
  KELP_BUFFER_BUSY = 68,  /* a read may still write into this buffer: reap first */
  KELP_BAD_FID = 69,      /* not a file id */
  KELP_NO_MEMORY = 70,    /* no space left in the data area, or in this process */
  KELP_NO_CHANNEL = 71,   /* every channel of the connection is open already */
  KELP_VERSION = 72,      /* library and daemon do not speak a common version */
  KELP_REFUSED = 73,      /* the daemon does not admit this user, or has no room */
  KELP_SYSTEM = 74,       /* a system call failed: the detail names it */
  KELP_USAGE = 75         /* a null pointer, an unknown option: a bug of the caller */
} kelp_status;

/* Which way the bytes of a completion came. Never guessed, never simulated. */
typedef enum kelp_path {
  KELP_PATH_NONE = 0,  /* no bytes were moved */
  KELP_PATH_LOCAL = 1, /* volume files on this host */
  KELP_PATH_CACHE = 2, /* the daemon's cache of hot needles */
  KELP_PATH_VERBS = 3, /* RDMA from the storage host */
  KELP_PATH_TCP = 4,   /* TCP from the kelpd of the storage host */
  KELP_PATH_HTTP = 5   /* the volume server itself, over HTTP */
} kelp_path;

/* kelp_completion.flags */
#define KELP_FLAG_CRC_VERIFIED 0x0001u /* CRC-32C of the stored bytes compared, and equal */
#define KELP_FLAG_TRUNCATED 0x0002u    /* the needle goes on beyond the buffer's end */
#define KELP_FLAG_BUFFER_HELD 0x0004u  /* do not reuse yet; kelp_buffer_free() waits for it */
#define KELP_FLAG_INFLATED 0x0008u     /* stored compressed; the bytes are the inflated ones */

typedef enum kelp_op {
  KELP_OP_READ = 0, /* bytes of the needle */
  KELP_OP_STAT = 1, /* one kelp_stat at the buffer's start */
  KELP_OP_NOP = 2   /* a round trip through the worker; needs no fid and no buffer */
} kelp_op;

/* A file id: "3,01637037d6" is volume 3, needle 0x1, cookie 0x637037d6. */
typedef struct kelp_fid {
  uint32_t volume;
  uint32_t cookie;
  uint64_t needle;
} kelp_fid;

/* One request. offset and length count bytes of the logical (inflated) content:
 * bytes = min(length, total - offset); offset == total answers KELP_OK with 0 bytes, beyond it
 * KELP_RANGE. length is the buffer's capacity and never 0 (but for KELP_OP_NOP). */
typedef struct kelp_request {
  uint64_t tag; /* comes back in the completion; the library gives it no meaning */
  kelp_fid fid;
  uint64_t offset;
  void* buffer; /* inside one allocation of kelp_buffer_alloc() */
  uint32_t length;
  uint32_t timeout_us; /* 0: the connection's default; the daemon caps it */
  uint32_t op;         /* kelp_op */
  uint32_t reserved;   /* 0 */
  const void* hints;   /* NULL, or KELP_HINTS_BYTES filled by kelp_hints_put(); leave them as they
                        * are until the request is answered */
} kelp_request;

/* What a request may say besides: neither is needed where the daemon knows its cluster. */
typedef struct kelp_hints {
  const char* token;         /* read token for volume servers that want one; NULL: none */
  const char* volume_server; /* "host:port" to ask first, if the master lists it for the volume or
                              * the daemon's configuration allows it, else KELP_DENIED; NULL */
} kelp_hints;

#define KELP_HINTS_BYTES 1024

/* What became of one request. On any status but KELP_OK the buffer's content is unspecified,
 * as are its bytes beyond `bytes`. */
typedef struct kelp_completion {
  uint64_t tag;
  uint64_t total;   /* logical size of the whole needle, where known */
  uint32_t bytes;   /* bytes in the buffer */
  uint16_t flags;   /* KELP_FLAG_* */
  uint8_t status;   /* kelp_status */
  uint8_t path;     /* kelp_path */
  uint8_t attempts; /* times the read was begun: more than 1 if the volume changed under it */
  uint8_t reserved[7];
} kelp_completion;

/* Answer of KELP_OP_STAT. name, mime and pairs follow the struct in this order, without
 * terminators; where the buffer is too small for them they are cut and the completion carries
 * KELP_FLAG_TRUNCATED. A buffer of 1 KiB holds all but large pairs. */
typedef struct kelp_stat {
  uint64_t total;        /* logical bytes */
  uint64_t stored;       /* bytes as they lie in the volume */
  uint64_t modified_s;   /* Unix seconds of the last change; 0: not recorded */
  uint64_t append_at_ns; /* Unix nanoseconds of the append; 0 in volumes of version 1 and 2 */
  uint32_t crc32c;       /* of the stored bytes: the ETag; servers before 3.09 stored it masked */
  uint32_t ttl_minutes;  /* 0: none */
  uint32_t flags;        /* KELP_STAT_* */
  uint16_t pairs_bytes;  /* JSON object of strings */
  uint8_t name_bytes;
  uint8_t mime_bytes;
  uint8_t version; /* needle version of the volume: 1, 2 or 3 */
  uint8_t reserved[15];
} kelp_stat;

#define KELP_STAT_COMPRESSED 0x01u
#define KELP_STAT_HAS_NAME 0x02u
#define KELP_STAT_HAS_MIME 0x04u
#define KELP_STAT_HAS_MODIFIED 0x08u
#define KELP_STAT_HAS_TTL 0x10u
#define KELP_STAT_HAS_PAIRS 0x20u
#define KELP_STAT_CHUNK_MANIFEST 0x80u

typedef struct kelp_connection kelp_connection;
typedef struct kelp_channel kelp_channel;

/* Options of kelp_connect(); start from KELP_OPTIONS_INIT. */
typedef struct kelp_options {
  uint32_t size;         /* sizeof(kelp_options) of the caller */
  uint32_t channels;     /* threads that will open a channel; 1..64 */
  uint64_t data_bytes;   /* size of the data area; rounded up to whole pages */
  uint32_t ring_entries; /* of a submission ring; power of two, 4..65536; 0: the daemon's choice */
  uint32_t timeout_us;   /* of requests that name none */
  uint32_t spin_us;      /* how long kelp_reap() polls before it sleeps, at most */
  uint32_t reserved;     /* 0 */
  const char* run_dir;   /* where the daemon's sockets are; NULL: $KELP_RUN_DIR or /run/kelp */
  const char* name;      /* shown to operators; NULL: the program's name */
} kelp_options;

#define KELP_DEFAULT_DATA_BYTES (64ull << 20)
#define KELP_OPTIONS_INIT \
  { sizeof(kelp_options), 1, KELP_DEFAULT_DATA_BYTES, 0, 5000000, 100, 0, NULL, NULL }

/* ---- connection ------------------------------------------------------------------------- */

/* Attaches to the daemon of `options->run_dir`. options may be NULL. Blocks for at most 5 s.
 * Owns: the caller, until kelp_close(). On failure *out is NULL and kelp_error_detail() says why.
 * KELP_DISCONNECTED: no daemon there. KELP_REFUSED, KELP_VERSION, KELP_SYSTEM, KELP_USAGE. */
KELP_API kelp_status kelp_connect(const kelp_options* options, kelp_connection** out);

/* Detaches. Ends all channels and frees all buffers of the connection; no thread may be inside
 * any call on it. NULL is allowed. */
KELP_API void kelp_close(kelp_connection* connection);

/* After KELP_DISCONNECTED: attaches anew, with new memory at new addresses. All channels must
 * be closed and all buffers forgotten before: those of the old memory are gone. No other thread
 * may be inside any call on the connection. */
KELP_API kelp_status kelp_reconnect(kelp_connection* connection);

/* Why the last failing call of this thread failed: one sentence. Never NULL; valid until the
 * thread's next failing call. */
KELP_API const char* kelp_error_detail(void);

/* ---- buffers ---------------------------------------------------------------------------- */

/* Takes `bytes` (rounded up to 4 KiB, page-aligned) from the data area. KELP_NO_MEMORY. */
KELP_API kelp_status kelp_buffer_alloc(kelp_connection* connection, size_t bytes, void** out);

/* Gives a buffer back. A buffer a read may still write into is kept aside and given back when
 * the last such read has ended. NULL is allowed. KELP_BAD_BUFFER if it is not one. */
KELP_API kelp_status kelp_buffer_free(kelp_connection* connection, void* buffer);

/* Writes `hints` into `block`, KELP_HINTS_BYTES inside one allocation of kelp_buffer_alloc(), for
 * kelp_request.hints. One block may serve any number of requests. KELP_USAGE: NULL, or the two
 * texts together are longer than 1020 bytes. */
KELP_API kelp_status kelp_hints_put(void* block, const kelp_hints* hints);

/* ---- channel ---------------------------------------------------------------------------- */

/* Opens a channel for one thread. KELP_NO_CHANNEL when all of options->channels are open. */
KELP_API kelp_status kelp_channel_open(kelp_connection* connection, kelp_channel** out);

/* Closes it. Requests in flight go on; their completions are dropped and the buffers they may
 * write into stay withheld until they have ended. */
KELP_API void kelp_channel_close(kelp_channel* channel);

/* Hands `count` requests to the daemon, in order; *accepted (may be NULL) tells how many were
 * taken. Never blocks. A request that is refused stops the batch: KELP_RING_FULL (reap, then
 * submit the rest), KELP_BAD_BUFFER, KELP_BUFFER_BUSY, KELP_USAGE, KELP_DISCONNECTED,
 * KELP_FORKED. */
KELP_API kelp_status kelp_submit(kelp_channel* channel, const kelp_request* requests,
                                 uint32_t count, uint32_t* accepted);

/* Takes up to `max` completions into `out`; *reaped tells how many. Waits up to timeout_us for
 * the first: polls for options->spin_us, then sleeps; a small part of that
 * where the last wait was not worth it, as for answers from other hosts. 0 never waits and, while
 * the daemon polls, makes no system call. KELP_OK with *reaped == 0: none came in time. Each
 * accepted request is completed exactly once, at the latest a little after its timeout.
 * KELP_DISCONNECTED: the daemon is gone and nothing more will come. KELP_FORKED, KELP_USAGE. */
KELP_API kelp_status kelp_reap(kelp_channel* channel, kelp_completion* out, uint32_t max,
                               uint64_t timeout_us, uint32_t* reaped);

/* For a program that waits in an event loop of its own instead of inside kelp_reap():
 *
 *   kelp_channel_fds()  -> into the loop's poll or epoll set, level- or edge-triggered
 *   before it sleeps:   kelp_channel_arm(); if *ready is not 0, do not sleep
 *   after it has slept: kelp_channel_disarm(), then kelp_reap() with timeout_us 0
 *
 * The loop wakes at least once a second while requests are in flight: that is when those that are
 * overdue are answered, and a daemon that is gone is noticed. */

/* The channel's descriptors: up to `max` into `fds`; *count tells how many there are. They stay
 * the library's, and the same until the channel is closed. KELP_USAGE, KELP_FORKED. */
KELP_API kelp_status kelp_channel_fds(kelp_channel* channel, int* fds, uint32_t max,
                                      uint32_t* count);

/* From here on what completes makes one of the descriptors readable. *ready: 1 if there is a
 * completion already. */
KELP_API kelp_status kelp_channel_arm(kelp_channel* channel, uint32_t* ready);

/* No more of that. woken: not 0 if any of the descriptors was readable; costs a system call then.
 */
KELP_API kelp_status kelp_channel_disarm(kelp_channel* channel, int woken);

/* One read, start to end: parses `fid`, submits, waits. Answers the completion's status (or why
 * it could not be submitted). Not to be mixed with submitted requests that are still in flight
 * on this channel: KELP_USAGE. `out` may be NULL. timeout_us 0: the connection's default. */
KELP_API kelp_status kelp_read(kelp_channel* channel, const char* fid, uint64_t offset,
                               void* buffer, uint32_t length, uint32_t timeout_us,
                               kelp_completion* out);

/* Many reads, kept as deep as the ring allows; out[i] answers requests[i] (its tag is the
 * request's). Returns KELP_OK when every request has an answer, whatever it is. Same rule about
 * requests in flight as kelp_read(). */
KELP_API kelp_status kelp_read_many(kelp_channel* channel, const kelp_request* requests,
                                    uint32_t count, kelp_completion* out);

/* Number of requests that may be in flight on a channel at once. */
KELP_API uint32_t kelp_channel_capacity(const kelp_channel* channel);

/* ---- file ids and words ----------------------------------------------------------------- */

/* Parses any textual form of a file id: "3,01637037d6", "3/01637037d6", with a "_delta", a
 * leading '/', a ".ext" or a "/file.name"; docs/reads.md lists them. KELP_BAD_FID, also for a
 * text of 4096 bytes or more. */
KELP_API kelp_status kelp_fid_parse(const char* text, kelp_fid* out);

/* Writes the canonical text ("3,01637037d6") and a terminator into out[40]. */
KELP_API void kelp_fid_format(const kelp_fid* fid, char out[40]);

/* "not-found", "ok", ...: short, stable, for logs and scripts. */
KELP_API const char* kelp_status_name(kelp_status status);
/* One sentence on what the status means and what to do. */
KELP_API const char* kelp_status_text(kelp_status status);
/* "local", "http", ... */
KELP_API const char* kelp_path_name(kelp_path path);
/* Version of the library in use, "0.1.0". */
KELP_API const char* kelp_version(void);

#ifdef __cplusplus
}
#endif
#endif /* KELP_H */
