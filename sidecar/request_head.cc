#include "sidecar/request_head.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
// Beast's own header, not <boost/beast/http.hpp>: that brings Asio's sockets with it.
#include <boost/beast/http/basic_parser.hpp>

namespace kelp::sidecar {
namespace {

namespace http = boost::beast::http;
using Text = boost::beast::string_view;
using BeastError = boost::beast::error_code;

std::string_view view(Text text) {
  return {text.data(), text.size()};
}

Method method_of(http::verb verb) {
  switch (verb) {
    case http::verb::get:
      return Method::kGet;
    case http::verb::head:
      return Method::kHead;
    case http::verb::post:
      return Method::kPost;
    case http::verb::delete_:
      return Method::kDelete;
    default:
      return Method::kOther;
  }
}

class Parser final : public http::basic_parser<true> {
 public:
  explicit Parser(std::span<char> head) : head_(head) {}
  const RequestHead& found() const { return found_; }
  bool host_given() const { return host_given_; }

 private:
  void on_request_impl(http::verb verb, Text, Text target, int version, BeastError&) override {
    found_.http_1_0 = version < 11;
    found_.method = method_of(verb);
    // Beast shows the caller's own bytes: they came in one piece, and no line is folded.
    found_.target =
        head_.subspan(static_cast<std::size_t>(target.data() - head_.data()), target.size());
  }

  void on_field_impl(http::field name, Text, Text value, BeastError&) override {
    switch (name) {
      case http::field::host:
        found_.repeated |= host_given_;
        host_given_ = true;
        found_.host = view(value);
        return;
      case http::field::range:
        return once(found_.range, value);
      case http::field::if_none_match:
        return once(found_.if_none_match, value);
      case http::field::if_modified_since:
        return once(found_.if_modified_since, value);
      case http::field::authorization:
        return once(found_.authorization, value);
      case http::field::transfer_encoding:
        found_.has_body = true;
        return;
      case http::field::content_length:
        found_.has_body |= view(value) != "0";
        return;
      default:
        return;
    }
  }

  void once(std::string_view& field, Text value) {
    found_.repeated |= !field.empty();
    field = view(value);
  }

  void on_response_impl(int, Text, int, BeastError&) override {}
  void on_header_impl(BeastError&) override {}
  void on_body_init_impl(const boost::optional<std::uint64_t>&, BeastError&) override {}
  std::size_t on_body_impl(Text body, BeastError&) override { return body.size(); }
  void on_chunk_header_impl(std::uint64_t, Text, BeastError&) override {}
  std::size_t on_chunk_body_impl(std::uint64_t, Text body, BeastError&) override {
    return body.size();
  }
  void on_finish_impl(BeastError&) override {}

  const std::span<char> head_;
  RequestHead found_;
  bool host_given_ = false;
};

/// A header line that goes on in the next one. RFC 9112, 5.2: a server may refuse it. Beast puts
/// such a value together in memory that is gone when the parser returns, so no view of it may be
/// kept.
bool has_folded_line(std::string_view head) noexcept {
  return head.find("\r\n ") != std::string_view::npos ||
         head.find("\r\n\t") != std::string_view::npos;
}

const char* sentence(const BeastError& error) {
  if (error == http::error::bad_version) return "this is not HTTP/1.0 or HTTP/1.1";
  if (error == http::error::bad_method) return "the request does not begin with a method";
  if (error == http::error::bad_target) return "the request names no proper target";
  if (error == http::error::bad_field || error == http::error::bad_value) {
    return "a header line makes no sense";
  }
  if (error == http::error::bad_content_length || error == http::error::bad_transfer_encoding) {
    return "the headers contradict each other about a body";
  }
  return "this is not an HTTP request";
}

}  // namespace

std::optional<RequestHead> parse_request_head(std::span<char> head, const char*& problem) {
  const auto refuse = [&](const char* why) {
    problem = why;
    return std::nullopt;
  };
  if (has_folded_line({head.data(), head.size()})) {
    return refuse("a header line goes on in the next one, which HTTP gave up");
  }
  Parser parser(head);
  parser.header_limit(kMostHeadBytes);
  parser.skip(true);
  BeastError error;
  parser.put(boost::asio::const_buffer(head.data(), head.size()), error);
  if (error) return refuse(sentence(error));
  if (!parser.is_header_done()) return refuse("this is not an HTTP request");
  RequestHead found = parser.found();
  // 1.1 needs one, and one is what a proxy in between goes by.
  if (!found.http_1_0 && !parser.host_given()) return refuse("there is no Host header");
  if (found.repeated) return refuse("a header is there twice that may be there once");
  found.keep_alive = parser.keep_alive();
  return found;
}

std::size_t find_head_end(std::string_view bytes, std::size_t searched) noexcept {
  constexpr std::string_view kEnd = "\r\n\r\n";
  const std::size_t from = searched < kEnd.size() ? 0 : searched - (kEnd.size() - 1);
  const std::size_t at = bytes.find(kEnd, from);
  return at == std::string_view::npos ? 0 : at + kEnd.size();
}

}  // namespace kelp::sidecar
