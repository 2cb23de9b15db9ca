// The C ABI of kelp.h over Connection and Channel: null checks, error sentences, no exceptions.
#include "shm_ring/kelp.h"

#include <errno.h>
#include <stdlib.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string>

#include "shm_ring/channel.h"
#include "shm_ring/connection.h"
#include "shm_ring/file_id.h"
#include "shm_ring/hints.h"

struct kelp_connection {
  std::unique_ptr<kelp::Connection> impl;
};

// A kelp_channel is a kelp::Channel; the C name only hides it.
namespace {

using kelp::Channel;

Channel* unwrap(kelp_channel* channel) {
  return reinterpret_cast<Channel*>(channel);
}
const Channel* unwrap(const kelp_channel* channel) {
  return reinterpret_cast<const Channel*>(channel);
}

/// This thread's last failure. One per thread and not per connection: a thread asks right after.
thread_local std::string last_failure;
thread_local const char* last_constant_failure = nullptr;

kelp_status failed(kelp_status status, std::string what) noexcept {
  last_failure = std::move(what);
  last_constant_failure = nullptr;
  return status;
}

/// Without allocation, for the data path.
kelp_status failed_constant(kelp_status status, const char* what) noexcept {
  last_constant_failure = what;
  return status;
}

/// Runs `body`, which answers a kelp_status, and turns exceptions into one.
template <class Body>
kelp_status guarded(Body&& body) noexcept {
  try {
    return body();
  } catch (const std::bad_alloc&) {
    return failed_constant(KELP_NO_MEMORY, "this process is out of memory");
  } catch (...) {
    return failed_constant(KELP_SYSTEM, "an unexpected error inside libkelp");
  }
}

kelp_status usage(const char* what) noexcept {
  return failed_constant(KELP_USAGE, what);
}

kelp::ClientResult<kelp::ConnectOptions> read_options(const kelp_options* given) {
  kelp_options options = KELP_OPTIONS_INIT;
  const auto refuse = [](std::string what) {
    return tl::unexpected(kelp::ClientError{KELP_USAGE, std::move(what)});
  };
  if (given != nullptr) {
    constexpr std::uint32_t kSmallest = offsetof(kelp_options, run_dir);
    if (given->size < kSmallest || given->size > 4096) {
      return refuse("kelp_options.size is " + std::to_string(given->size) +
                    "; start from KELP_OPTIONS_INIT");
    }
    std::memcpy(&options, given, std::min<std::size_t>(given->size, sizeof options));
  }
  if (options.channels < 1 || options.channels > 64) return refuse("kelp_options.channels: 1..64");
  if (options.data_bytes < 1 || options.data_bytes > 1ULL << 40) {
    return refuse("kelp_options.data_bytes: 1 byte to 1 TiB");
  }
  if (options.timeout_us == 0) return refuse("kelp_options.timeout_us is 0: nothing could be read");
  if (options.reserved != 0) return refuse("kelp_options.reserved is not 0");

  kelp::ConnectOptions result;
  const char* from_environment = ::secure_getenv("KELP_RUN_DIR");
  result.run_dir = options.run_dir != nullptr ? options.run_dir
                   : from_environment != nullptr && from_environment[0] != '\0'
                       ? from_environment
                       : kelp::kDefaultRunDir;
  result.name = options.name != nullptr ? options.name : program_invocation_short_name;
  result.channels = options.channels;
  result.data_bytes = options.data_bytes;
  result.ring_entries = options.ring_entries;
  result.timeout_us = options.timeout_us;
  result.spin_us = options.spin_us;
  return result;
}

}  // namespace

kelp_status kelp_connect(const kelp_options* options, kelp_connection** out) {
  if (out == nullptr) return usage("out is NULL");
  *out = nullptr;
  return guarded([&] {
    auto wanted = read_options(options);
    if (!wanted) return failed(wanted.error().status, wanted.error().what);
    auto connection = kelp::Connection::connect(std::move(*wanted));
    if (!connection) return failed(connection.error().status, connection.error().what);
    *out = new kelp_connection{std::move(*connection)};
    return KELP_OK;
  });
}

void kelp_close(kelp_connection* connection) {
  delete connection;
}

kelp_status kelp_reconnect(kelp_connection* connection) {
  if (connection == nullptr) return usage("connection is NULL");
  return guarded([&] {
    auto done = connection->impl->reconnect();
    return done ? KELP_OK : failed(done.error().status, done.error().what);
  });
}

const char* kelp_error_detail(void) {
  return last_constant_failure != nullptr ? last_constant_failure : last_failure.c_str();
}

kelp_status kelp_buffer_alloc(kelp_connection* connection, size_t bytes, void** out) {
  if (connection == nullptr || out == nullptr) return usage("connection or out is NULL");
  *out = nullptr;
  return guarded([&] {
    auto buffer = connection->impl->alloc_buffer(bytes);
    if (!buffer) return failed(buffer.error().status, buffer.error().what);
    *out = *buffer;
    return KELP_OK;
  });
}

kelp_status kelp_buffer_free(kelp_connection* connection, void* buffer) {
  if (connection == nullptr) return usage("connection is NULL");
  return guarded([&] {
    auto done = connection->impl->free_buffer(buffer);
    return done ? KELP_OK : failed(done.error().status, done.error().what);
  });
}

kelp_status kelp_channel_open(kelp_connection* connection, kelp_channel** out) {
  if (connection == nullptr || out == nullptr) return usage("connection or out is NULL");
  *out = nullptr;
  return guarded([&] {
    auto channel = connection->impl->open_channel();
    if (!channel) return failed(channel.error().status, channel.error().what);
    *out = reinterpret_cast<kelp_channel*>(*channel);
    return KELP_OK;
  });
}

void kelp_channel_close(kelp_channel* channel) {
  if (channel != nullptr) unwrap(channel)->connection().close_channel(unwrap(channel));
}

kelp_status kelp_submit(kelp_channel* channel, const kelp_request* requests, uint32_t count,
                        uint32_t* accepted) {
  if (channel == nullptr) return usage("channel is NULL");
  const kelp_status status = unwrap(channel)->submit(requests, count, accepted);
  return status == KELP_OK ? status : failed_constant(status, unwrap(channel)->refusal());
}

kelp_status kelp_reap(kelp_channel* channel, kelp_completion* out, uint32_t max,
                      uint64_t timeout_us, uint32_t* reaped) {
  if (channel == nullptr) return usage("channel is NULL");
  const kelp_status status = unwrap(channel)->reap(out, max, timeout_us, reaped);
  return status == KELP_OK ? status : failed_constant(status, unwrap(channel)->refusal());
}

kelp_status kelp_channel_fds(kelp_channel* channel, int* fds, uint32_t max, uint32_t* count) {
  if (channel == nullptr || count == nullptr || (fds == nullptr && max != 0)) {
    return usage("channel, fds or count is NULL");
  }
  *count = 0;
  if (unwrap(channel)->connection().forked()) {
    return failed_constant(KELP_FORKED, "this connection belongs to the parent process");
  }
  *count = unwrap(channel)->wake_fds(fds, max);
  return KELP_OK;
}

kelp_status kelp_channel_arm(kelp_channel* channel, uint32_t* ready) {
  if (channel == nullptr || ready == nullptr) return usage("channel or ready is NULL");
  *ready = 0;
  if (unwrap(channel)->connection().forked()) {
    return failed_constant(KELP_FORKED, "this connection belongs to the parent process");
  }
  *ready = unwrap(channel)->arm() ? 1 : 0;
  return KELP_OK;
}

kelp_status kelp_channel_disarm(kelp_channel* channel, int woken) {
  if (channel == nullptr) return usage("channel is NULL");
  if (unwrap(channel)->connection().forked()) {
    return failed_constant(KELP_FORKED, "this connection belongs to the parent process");
  }
  unwrap(channel)->disarm(woken != 0);
  return KELP_OK;
}

kelp_status kelp_read(kelp_channel* channel, const char* fid, uint64_t offset, void* buffer,
                      uint32_t length, uint32_t timeout_us, kelp_completion* out) {
  if (channel == nullptr) return usage("channel is NULL");
  kelp_request request{};
  const kelp_status parsed = kelp_fid_parse(fid, &request.fid);
  if (parsed != KELP_OK) return parsed;
  request.offset = offset;
  request.buffer = buffer;
  request.length = length;
  request.timeout_us = timeout_us;
  kelp_completion completion;
  const kelp_status status = kelp_read_many(channel, &request, 1, &completion);
  if (status != KELP_OK) return status;
  if (out != nullptr) *out = completion;
  const auto answer = static_cast<kelp_status>(completion.status);
  return answer == KELP_OK ? answer : failed_constant(answer, kelp_status_text(answer));
}

namespace {

/// Answers what the daemon can no longer answer; the first `submitted` are in its hands.
void complete_lost(const kelp_request* requests, uint32_t count, uint32_t submitted,
                   kelp_completion* out, const bool* answered, kelp_status status) {
  for (uint32_t i = 0; i < count; ++i) {
    if (answered[i]) continue;
    out[i] = {};
    out[i].tag = requests[i].tag;
    out[i].status = static_cast<std::uint8_t>(status);
    if (i < submitted) out[i].flags = KELP_FLAG_BUFFER_HELD;
  }
}

}  // namespace

kelp_status kelp_read_many(kelp_channel* channel, const kelp_request* requests, uint32_t count,
                           kelp_completion* out) {
  if (channel == nullptr) return usage("channel is NULL");
  if (count != 0 && (requests == nullptr || out == nullptr))
    return usage("requests or out is NULL");
  // Said first: what was in flight then will not be answered, and reaping is no way out.
  kelp::Connection& connection = unwrap(channel)->connection();
  if (connection.forked()) {
    return failed_constant(KELP_FORKED, "this connection belongs to the parent process");
  }
  if (connection.disconnected()) return failed_constant(KELP_DISCONNECTED, "kelpd is gone");
  if (unwrap(channel)->unanswered() != 0) {
    return usage("requests are in flight on this channel; reap them first");
  }
  return guarded([&] {
    std::array<bool, 64> few{};  // no allocation for those
    const auto many = count > few.size() ? std::make_unique<bool[]>(count) : nullptr;
    bool* const answered = many != nullptr ? many.get() : few.data();
    uint32_t submitted = 0;
    uint32_t done = 0;
    while (done < count) {
      kelp_status status = KELP_OK;
      while (submitted < count && status == KELP_OK) {
        kelp_request request = requests[submitted];
        request.tag = submitted;
        status = kelp_submit(channel, &request, 1, nullptr);
        if (status == KELP_OK) {
          ++submitted;
        } else if (status != KELP_RING_FULL && status != KELP_DISCONNECTED) {
          // This one request is wrong; the others are not.
          if (count == 1) return status;
          out[submitted] = {};
          out[submitted].tag = requests[submitted].tag;
          out[submitted].status = static_cast<std::uint8_t>(status);
          answered[submitted++] = true;
          ++done;
          status = KELP_OK;
        }
      }
      if (done == count) break;
      if (status == KELP_RING_FULL && submitted == done) {
        // Nothing of ours is in flight: withheld buffers of timed-out reads fill the ring.
        complete_lost(requests, count, submitted, out, answered, KELP_RING_FULL);
        return status;
      }
      kelp_completion batch[32];
      uint32_t reaped = 0;
      const kelp_status reap_status = kelp_reap(channel, batch, 32, 1'000'000, &reaped);
      for (uint32_t i = 0; i < reaped; ++i) {
        const auto index = static_cast<uint32_t>(batch[i].tag);
        out[index] = batch[i];
        out[index].tag = requests[index].tag;
        answered[index] = true;
        ++done;
      }
      const bool gone =
          reap_status != KELP_OK || (status == KELP_DISCONNECTED && submitted == done);
      if (gone && done < count) {
        const kelp_status why = reap_status != KELP_OK ? reap_status : status;
        complete_lost(requests, count, submitted, out, answered, why);
        return why;
      }
    }
    return KELP_OK;
  });
}

kelp_status kelp_hints_put(void* block, const kelp_hints* hints) {
  if (block == nullptr || hints == nullptr) return usage("block or hints is NULL");
  const auto text = [](const char* given) {
    return given == nullptr ? std::string_view()
                            : std::string_view(given, ::strnlen(given, KELP_HINTS_BYTES + 1));
  };
  static_assert(KELP_HINTS_BYTES == kelp::kHintsBytes);
  const bool fits = kelp::write_hints(
      text(hints->token), text(hints->volume_server),
      std::span<std::byte, kelp::kHintsBytes>(static_cast<std::byte*>(block), kelp::kHintsBytes));
  return fits ? KELP_OK : usage("token and volume_server are longer than 1020 bytes together");
}

uint32_t kelp_channel_capacity(const kelp_channel* channel) {
  return channel == nullptr ? 0 : unwrap(channel)->capacity();
}

kelp_status kelp_fid_parse(const char* text, kelp_fid* out) {
  if (text == nullptr || out == nullptr) return usage("text or out is NULL");
  // Longer than any file id with a generous file name: stop looking for the terminator. What is cut
  // there would be another file id.
  constexpr std::size_t kTooLong = 4096;
  const std::size_t length = ::strnlen(text, kTooLong);
  const auto id = length == kTooLong ? std::nullopt : kelp::parse_file_id({text, length});
  if (!id) return failed_constant(KELP_BAD_FID, kelp_status_text(KELP_BAD_FID));
  out->volume = static_cast<std::uint32_t>(id->volume);
  out->needle = static_cast<std::uint64_t>(id->needle);
  out->cookie = static_cast<std::uint32_t>(id->cookie);
  return KELP_OK;
}

void kelp_fid_format(const kelp_fid* fid, char out[40]) {
  try {
    const std::string text = kelp::format_file_id(
        {kelp::VolumeId{fid->volume}, kelp::NeedleId{fid->needle}, kelp::Cookie{fid->cookie}});
    const std::size_t bytes = std::min<std::size_t>(text.size(), 39);
    std::memcpy(out, text.data(), bytes);
    out[bytes] = '\0';
  } catch (...) {
    out[0] = '\0';
  }
}

const char* kelp_version(void) {
  return KELP_VERSION_TEXT;
}
