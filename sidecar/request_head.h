// The head of an HTTP/1.x request: Boost.Beast's parser, and of its findings what is needed here.
// Pure, any thread; allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace kelp::sidecar {

/// The longest head that is read. A longer one is answered with 431.
constexpr std::size_t kMostHeadBytes = 16 * 1024;

enum class Method : std::uint8_t { kGet, kHead, kPost, kDelete, kOther };

/// Views into the bytes that were parsed.
struct RequestHead {
  Method method = Method::kOther;
  std::span<char> target;
  bool keep_alive = false;
  bool http_1_0 = false;
  bool has_body = false;  ///< it says that one follows
  bool repeated = false;  ///< a header that may be there once is there twice
  std::string_view host;
  std::string_view range;
  std::string_view if_none_match;
  std::string_view if_modified_since;
  std::string_view authorization;
};

/// `head` ends with its empty line. Nothing: it is no request, and `problem` says why.
std::optional<RequestHead> parse_request_head(std::span<char> head, const char*& problem);

/// The bytes of the head at the front of `bytes`, with its empty line; 0: it is not all there. The
/// first `searched` bytes are known to have no end of one.
std::size_t find_head_end(std::string_view bytes, std::size_t searched) noexcept;

}  // namespace kelp::sidecar
