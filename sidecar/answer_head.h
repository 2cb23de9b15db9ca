// Writes the head of an answer into a fixed array. The sidecar's thread only.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "shm_ring/kelp.h"
#include "sidecar/http_date.h"

namespace kelp::sidecar {

/// "OK", "Not Found", ...
std::string_view reason_phrase(int status) noexcept;

/// What does not fit is left out as a whole line, so nothing is ever cut in the middle. Lines must
/// not hold what strangers chose, unless it was judged.
class AnswerHead {
 public:
  explicit AnswerHead(std::span<char> room) noexcept : room_(room) {}

  void status(int code) noexcept;
  void line(std::string_view name, std::string_view value) noexcept;
  void line(std::string_view name, std::uint64_t value) noexcept;
  /// The empty line. Returns the bytes of the whole head.
  std::uint32_t end() noexcept;

 private:
  void put(std::string_view text) noexcept;

  std::span<char> room_;
  std::size_t used_ = 0;
};

/// What X-Source says of a path. It contains "rdma" only where RDMA carried the bytes: mounts look
/// for that.
std::string_view source_name(kelp_path path) noexcept;

/// "89abcdef", with the quotes: as a volume server makes it of the stored checksum.
void write_etag(std::uint32_t crc, std::array<char, 10>& out) noexcept;

/// The value of Date, made once a second.
class DateLine {
 public:
  std::string_view now(std::int64_t unix_s) noexcept;

 private:
  std::int64_t made_for_ = -1;
  std::array<char, kHttpDateBytes> text_{};
};

}  // namespace kelp::sidecar
