// One connection, one channel and one buffer of libkelp, for programs that measure or test. One
// thread at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "shm_ring/kelp.h"
#include "shm_ring/result.h"

namespace kelp::bench {

class KelpClient {
 public:
  /// The buffer is the largest read this client can do.
  static Result<KelpClient> open(const std::string& run_dir, std::size_t buffer_bytes,
                                 std::uint32_t timeout_us) {
    kelp_options options = KELP_OPTIONS_INIT;
    options.run_dir = run_dir.c_str();
    options.data_bytes = buffer_bytes + (1U << 20);
    options.timeout_us = timeout_us;
    KelpClient client;
    kelp_connection* connection = nullptr;
    if (const kelp_status status = kelp_connect(&options, &connection); status != KELP_OK) {
      return refusal("kelp_connect", status);
    }
    client.connection_.reset(connection);
    kelp_channel* channel = nullptr;
    if (const kelp_status status = kelp_channel_open(connection, &channel); status != KELP_OK) {
      return refusal("kelp_channel_open", status);
    }
    client.channel_.reset(channel);
    void* buffer = nullptr;
    if (const kelp_status status = kelp_buffer_alloc(connection, buffer_bytes, &buffer);
        status != KELP_OK) {
      return refusal("kelp_buffer_alloc", status);
    }
    client.buffer_ = {static_cast<char*>(buffer), buffer_bytes};  // freed with the connection
    return client;
  }

  /// Reads into the buffer; done.status says what became of it.
  kelp_status read(const char* fid, std::uint64_t offset, std::uint32_t length,
                   kelp_completion& done) noexcept {
    done = {};
    return kelp_read(channel_.get(), fid, offset, buffer_.data(), length, 0, &done);
  }

  std::span<char> buffer() const noexcept { return buffer_; }
  kelp_channel* channel() const noexcept { return channel_.get(); }

 private:
  template <auto Free>
  struct Call {
    template <class Handle>
    void operator()(Handle* handle) const noexcept {
      Free(handle);
    }
  };

  static tl::unexpected<Error> refusal(const char* call, kelp_status status) {
    return plain_error(std::string(call) + " answered " + kelp_status_name(status) + ": " +
                       kelp_error_detail());
  }

  std::unique_ptr<kelp_connection, Call<kelp_close>> connection_;
  std::unique_ptr<kelp_channel, Call<kelp_channel_close>> channel_;
  std::span<char> buffer_;
};

}  // namespace kelp::bench
