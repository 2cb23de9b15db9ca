#include "sidecar/answer_head.h"

#include <charconv>
#include <cstring>

namespace kelp::sidecar {
namespace {

/// Of the empty line.
constexpr std::size_t kEndBytes = 2;

std::string_view number(std::uint64_t value, std::array<char, 20>& room) noexcept {
  const auto [end, failed] = std::to_chars(room.data(), room.data() + room.size(), value);
  return {room.data(), static_cast<std::size_t>(end - room.data())};
}

}  // namespace

std::string_view reason_phrase(int status) noexcept {
  switch (status) {
    case 200:
      return "OK";
    case 206:
      return "Partial Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 414:
      return "URI Too Long";
    case 416:
      return "Range Not Satisfiable";
    case 431:
      return "Request Header Fields Too Large";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    default:
      return "Internal Server Error";
  }
}

void AnswerHead::put(std::string_view text) noexcept {
  std::memcpy(room_.data() + used_, text.data(), text.size());
  used_ += text.size();
}

void AnswerHead::status(int code) noexcept {
  std::array<char, 20> digits;
  put("HTTP/1.1 ");
  put(number(static_cast<std::uint64_t>(code), digits));
  put(" ");
  put(reason_phrase(code));
  put("\r\n");
}

void AnswerHead::line(std::string_view name, std::string_view value) noexcept {
  if (name.size() + value.size() + 4 + kEndBytes > room_.size() - used_) return;
  put(name);
  put(": ");
  put(value);
  put("\r\n");
}

void AnswerHead::line(std::string_view name, std::uint64_t value) noexcept {
  std::array<char, 20> digits;
  line(name, number(value, digits));
}

std::uint32_t AnswerHead::end() noexcept {
  put("\r\n");
  return static_cast<std::uint32_t>(used_);
}

std::string_view DateLine::now(std::int64_t unix_s) noexcept {
  if (unix_s != made_for_) {
    write_http_date(unix_s, text_);
    made_for_ = unix_s;
  }
  return {text_.data(), text_.size()};
}

std::string_view source_name(kelp_path path) noexcept {
  switch (path) {
    case KELP_PATH_LOCAL:
      return "kelp-local";
    case KELP_PATH_CACHE:
      return "kelp-cache";
    case KELP_PATH_VERBS:
      return "kelp-rdma";
    case KELP_PATH_TCP:
      return "kelp-tcp";
    case KELP_PATH_HTTP:
      return "http";
    case KELP_PATH_NONE:
      return "none";
  }
  return "none";
}

void write_etag(std::uint32_t crc, std::array<char, 10>& out) noexcept {
  constexpr const char* kDigits = "0123456789abcdef";
  out.front() = out.back() = '"';
  for (std::size_t i = 0; i < 8; ++i) out[8 - i] = kDigits[crc >> (4 * i) & 15];
}

}  // namespace kelp::sidecar
