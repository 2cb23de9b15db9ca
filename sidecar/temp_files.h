// Bytes of answers as files that a mount on this host opens itself. In a directory of ours, under
// names nobody can guess, for a short time. The sidecar's thread only.
//
// The files are gone when their reader says so, when they are too old, when the sidecar ends, and,
// after a crash, when the next one begins.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "shm_ring/result.h"
#include "shm_ring/unique_fd.h"

namespace kelp::sidecar {

class TempFiles {
 public:
  using Clock = std::chrono::steady_clock;
  /// A reader opens its file at once.
  static constexpr std::chrono::seconds kLifetime{10};

  /// Makes `directory` (0750) if its parent exists, and removes what an earlier kelpd left there.
  /// Of all files together there are never more than `most_bytes`.
  /// Errors: no directory, not ours, writable by others, taken by another kelpd.
  static Result<TempFiles> open(const std::string& directory, std::uint64_t most_bytes);

  TempFiles(TempFiles&&) noexcept = default;
  TempFiles& operator=(TempFiles&&) = delete;
  ~TempFiles();

  /// The path of a file that holds `bytes`; empty: there is no room, and nothing is lost by that.
  std::string put(std::span<const std::byte> bytes, Clock::time_point now);

  enum class Removal : std::uint8_t {
    kRemoved,
    kGone,     ///< it was one of ours, or could have been
    kNotOurs,  ///< no name that is given here; nothing was looked at
  };
  Removal remove(std::string_view path);

  void expire(Clock::time_point now);
  std::uint64_t bytes() const noexcept { return bytes_; }

 private:
  struct Held {
    std::string name;
    Clock::time_point end;
  };

  TempFiles(std::string directory, UniqueFd fd, std::uint64_t most_bytes)
      : directory_(std::move(directory)), fd_(std::move(fd)), most_bytes_(most_bytes) {}
  void clear_directory();
  void drop(const std::string& name);

  std::string directory_;
  UniqueFd fd_;
  std::uint64_t most_bytes_;
  std::uint64_t bytes_ = 0;
  std::unordered_map<std::string, std::uint64_t> sizes_;
  std::deque<Held> by_age_;
};

}  // namespace kelp::sidecar
