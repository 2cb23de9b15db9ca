// One connection, one channel and one buffer of libkelp, given back at the end of a command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "shm_ring/kelp.h"
#include "tools/failure.h"
#include "tools/options.h"

namespace kelp {

/// "3,01637037d6" of any textual form of a file id, or the usage error.
Outcome<std::string> canonical_fid(const std::string& fid);

class Session {
 public:
  /// Attaches to the daemon and takes a buffer of that size.
  static Outcome<Session> open(const CommonOptions& options, std::size_t buffer_bytes);

  const std::byte* buffer() const noexcept { return buffer_; }
  std::size_t buffer_bytes() const noexcept { return buffer_bytes_; }

  /// Goes with every read and stat from here on: a token, a volume server; either may be empty.
  Outcome<void> give_hints(const std::string& token, const std::string& volume_server);

  /// Reads up to `length` bytes (at most the buffer's) at `offset` into the buffer.
  Outcome<kelp_completion> read(const std::string& fid, std::uint64_t offset, std::uint32_t length,
                                std::uint32_t timeout_ms);

  /// A no-op: to the worker and back.
  Outcome<void> ping(std::uint32_t timeout_ms);

  /// What the last read ended with, also where it failed; all 0 where the daemon did not answer.
  const kelp_completion& last() const noexcept { return last_; }

  /// Puts a kelp_stat, and what follows it, at the buffer's start.
  Outcome<kelp_completion> stat(const std::string& fid, std::uint32_t timeout_ms);

 private:
  struct Close {
    void operator()(kelp_connection* connection) const noexcept { kelp_close(connection); }
  };
  using Connection = std::unique_ptr<kelp_connection, Close>;

  Session(Connection connection, kelp_channel* channel, std::byte* buffer, std::size_t bytes)
      : connection_(std::move(connection)),
        channel_(channel),
        buffer_(buffer),
        buffer_bytes_(bytes) {}
  kelp_status run(kelp_request& request, kelp_completion& done);
  static Outcome<kelp_completion> judge(const std::string& fid, kelp_status status,
                                        const kelp_completion& done, bool of_daemon);

  Connection connection_;  ///< its end is the end of channel and buffer
  kelp_channel* channel_;
  std::byte* buffer_;
  std::size_t buffer_bytes_;
  void* hints_ = nullptr;
  kelp_completion last_{};
};

}  // namespace kelp
