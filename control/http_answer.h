// One answer of HTTP/1.1 as it arrives, in any pieces: Boost.Beast's parser, which tells a sink.
#pragma once

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// Beast 1.74 asserts that the last chunk and what comes behind it are 5 bytes long, which an empty
// body that comes in pieces is not; the code below the assertion is right all the same. Nothing
// else here includes Boost.
#define BOOST_DISABLE_ASSERTS
// Beast's own headers, not <boost/beast/http.hpp>: that brings Asio's sockets with it.
#include <boost/beast/http/basic_parser.hpp>

#include "control/http_client.h"

namespace kelp {

class HttpAnswerParser {
 public:
  /// Where the answer goes. Either returning false ends it.
  struct Receiver {
    std::function<bool(const HttpHead&)> head;
    std::function<bool(std::span<const std::byte>)> body;
  };

  /// For the next answer. `of_head_request`: no body follows, whatever its headers say.
  void expect(Receiver receiver, bool of_head_request);

  enum class State : std::uint8_t {
    kMore,     ///< more has to come
    kDone,     ///< the answer is complete
    kRefused,  ///< the receiver wants no more of it
    kBroken,   ///< it is not HTTP, or too long; see error()
  };
  /// Takes from the front of `bytes` what makes sense so far, and says how much that was. What is
  /// left has to be offered again, with more behind it.
  State take(std::span<const std::byte> bytes, std::size_t& taken);
  /// The peer closed its end.
  State take_end();

  int status() const noexcept { return head_.code; }
  bool may_keep_connection() const { return parser_->keep_alive(); }
  const std::string& error() const noexcept { return error_; }

 private:
  using Error = boost::beast::error_code;

  /// Copies: what the parser shows is gone with its call.
  struct Head final : HttpHead {
    struct Field {
      std::size_t name, name_end, value_end;  // in `text`
    };
    int status() const override { return code; }
    std::string_view header(const char* name) const override;
    void clear();

    int code = 0;
    std::string text;
    std::vector<Field> fields;
  };

  class Parser final : public boost::beast::http::basic_parser<false> {
   public:
    explicit Parser(HttpAnswerParser& owner) : owner_(owner) {}

   private:
    using Verb = boost::beast::http::verb;
    using FieldName = boost::beast::http::field;
    using Text = boost::beast::string_view;

    void on_request_impl(Verb, Text, Text, int, Error&) override {}
    void on_response_impl(int code, Text reason, int version, Error& error) override;
    void on_field_impl(FieldName, Text name, Text value, Error&) override;
    void on_header_impl(Error& error) override;
    void on_body_init_impl(const boost::optional<std::uint64_t>&, Error&) override {}
    std::size_t on_body_impl(Text body, Error& error) override;
    void on_chunk_header_impl(std::uint64_t, Text, Error&) override {}
    std::size_t on_chunk_body_impl(std::uint64_t, Text body, Error& error) override;
    void on_finish_impl(Error&) override {}

    HttpAnswerParser& owner_;
  };

  void begin();
  State judge(const Error& error);

  Receiver receiver_;
  bool of_head_request_ = false;
  bool refused_ = false;
  std::uint32_t interim_ = 0;  // answers of 1xx that came before
  Head head_;
  std::string error_;
  std::optional<Parser> parser_;
};

}  // namespace kelp
