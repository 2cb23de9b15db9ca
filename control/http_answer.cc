#include "control/http_answer.h"

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <limits>

namespace kelp {
namespace {

/// A needle's pairs, 64 KiB at most, are sent as headers.
constexpr std::uint32_t kMostHeadBytes = 256 * 1024;
constexpr std::uint32_t kMostInterim = 8;
constexpr int kFirstStatus = 100;
constexpr int kFirstFinal = 200;

std::span<const std::byte> bytes_of(boost::beast::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

}  // namespace

std::string_view HttpAnswerParser::Head::header(const char* name) const {
  const std::string_view wanted(name);
  const std::string_view all(text);
  for (auto field = fields.rbegin(); field != fields.rend(); ++field) {
    const std::string_view found = all.substr(field->name, field->name_end - field->name);
    if (boost::beast::iequals({found.data(), found.size()}, {wanted.data(), wanted.size()})) {
      return all.substr(field->name_end, field->value_end - field->name_end);
    }
  }
  return {};
}

void HttpAnswerParser::Head::clear() {
  code = 0;
  text.clear();
  fields.clear();
}

void HttpAnswerParser::expect(Receiver receiver, bool of_head_request) {
  receiver_ = std::move(receiver);
  of_head_request_ = of_head_request;
  refused_ = false;
  interim_ = 0;
  error_.clear();
  begin();
}

void HttpAnswerParser::begin() {
  head_.clear();
  parser_.emplace(*this);
  parser_->eager(true);
  parser_->skip(of_head_request_);
  parser_->header_limit(kMostHeadBytes);
  parser_->body_limit(std::numeric_limits<std::uint64_t>::max());
}

HttpAnswerParser::State HttpAnswerParser::take(std::span<const std::byte> bytes,
                                               std::size_t& taken) {
  taken = 0;
  while (taken < bytes.size()) {
    const std::span<const std::byte> left = bytes.subspan(taken);
    Error error;
    taken += parser_->put(boost::asio::const_buffer(left.data(), left.size()), error);
    if (error == boost::beast::http::error::need_more) return State::kMore;
    if (error) return judge(error);
    if (!parser_->is_done()) continue;
    if (head_.code >= kFirstFinal) return State::kDone;
    if (head_.code == 101 || ++interim_ > kMostInterim) {
      error_ = "it answers " + std::to_string(head_.code) + ", which nobody asked for";
      return State::kBroken;
    }
    begin();
  }
  return State::kMore;
}

HttpAnswerParser::State HttpAnswerParser::take_end() {
  Error error;
  if (!parser_->got_some()) error = boost::beast::http::error::end_of_stream;
  if (!error) parser_->put_eof(error);
  return error ? judge(error) : State::kDone;
}

HttpAnswerParser::State HttpAnswerParser::judge(const Error& error) {
  if (refused_) return State::kRefused;
  error_ = error == boost::beast::http::error::end_of_stream
               ? "it closes the connection without an answer"
           : error == boost::beast::http::error::partial_message
               ? "it closes the connection in the middle of its answer"
               : "what it answers is not HTTP: " + error.message();
  return State::kBroken;
}

void HttpAnswerParser::Parser::on_response_impl(int code, Text, int, Error& error) {
  owner_.head_.code = code;
  // Beast takes any three digits, and gives those a body.
  if (code < kFirstStatus) error = boost::beast::http::error::bad_status;
}

void HttpAnswerParser::Parser::on_field_impl(FieldName, Text name, Text value, Error&) {
  Head& head = owner_.head_;
  const std::size_t at = head.text.size();
  head.text.append(name.data(), name.size()).append(value.data(), value.size());
  head.fields.push_back({at, at + name.size(), head.text.size()});
}

void HttpAnswerParser::Parser::on_header_impl(Error& error) {
  if (owner_.head_.code < kFirstFinal || owner_.receiver_.head(owner_.head_)) return;
  owner_.refused_ = true;
  error = boost::beast::http::error::end_of_stream;
}

std::size_t HttpAnswerParser::Parser::on_body_impl(Text body, Error& error) {
  if (owner_.receiver_.body(bytes_of(body))) return body.size();
  owner_.refused_ = true;
  error = boost::beast::http::error::end_of_stream;
  return 0;
}

std::size_t HttpAnswerParser::Parser::on_chunk_body_impl(std::uint64_t, Text body, Error& error) {
  return on_body_impl(body, error);
}

}  // namespace kelp
