#include "control/gateway/http_read.h"

#include <curl/curl.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <limits>

#include "dataplane/checksum/crc32c.h"
#include "dataplane/checksum/stored_checksum.h"
#include "dataplane/volume/gzip.h"

namespace kelp {
namespace {

/// Of something empty, compressed: a header, with a file name perhaps, and a trailer.
constexpr std::size_t kMostStoredBytes = 64 * 1024;
constexpr std::uint64_t kLastOffset = std::numeric_limits<std::int64_t>::max();  // of Go's parser

template <class Number>
bool parse_whole(std::string_view text, Number& out, int base = 10) {
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, out, base);
  return error == std::errc() && stopped == end && !text.empty();
}

struct ContentRange {
  std::uint64_t start = 0;
  std::uint64_t end = 0;  // one beyond the last byte
  std::uint64_t total = 0;
};

/// "bytes 0-99/1000"; of nothing "bytes 1000-999/1000", and "bytes 0--1/0".
std::optional<ContentRange> parse_content_range(std::string_view text) {
  constexpr std::string_view kUnit = "bytes ";
  if (!text.starts_with(kUnit)) return std::nullopt;
  text.remove_prefix(kUnit.size());
  const std::size_t dash = text.find('-');
  const std::size_t slash = text.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash) {
    return std::nullopt;
  }
  ContentRange range;
  std::int64_t last = 0;
  if (!parse_whole(text.substr(0, dash), range.start) ||
      !parse_whole(text.substr(dash + 1, slash - dash - 1), last) ||
      !parse_whole(text.substr(slash + 1), range.total) || last < -1) {
    return std::nullopt;
  }
  range.end = static_cast<std::uint64_t>(last + 1);
  if (range.end < range.start || range.end > range.total) return std::nullopt;
  return range;
}

/// "\"9a71bb4c\"", the CRC-32C of what is stored.
std::optional<std::uint32_t> parse_etag(std::string_view text) {
  std::uint32_t crc = 0;
  if (text.size() != 10 || text.front() != '"' || text.back() != '"') return std::nullopt;
  if (!parse_whole(text.substr(1, 8), crc, 16)) return std::nullopt;
  return crc;
}

/// Of "inline; filename=\"a.txt\"" the name.
std::string parse_file_name(std::string_view disposition) {
  constexpr std::string_view kName = "filename=";
  const std::size_t at = disposition.find(kName);
  if (at == std::string_view::npos) return {};
  std::string_view text = disposition.substr(at + kName.size());
  if (!text.starts_with('"')) return std::string(text.substr(0, text.find(';')));
  std::string name;
  for (std::size_t i = 1; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] == '\\' && i + 1 < text.size()) ++i;
    name += text[i];
  }
  return name;
}

}  // namespace

HttpClient::Request HttpRead::request(const std::string& base, const std::string& token) {
  // Nothing of an earlier answer is believed about this one.
  status_ = 0;
  total_known_ = false;
  expected_bytes_ = taken_bytes_ = 0;
  fault_.clear();
  HttpClient::Request request;
  request.url = base + "/" + format_file_id(wanted_.fid);
  request.sink = this;
  if (!token.empty()) request.headers.push_back("Authorization: Bearer " + token);
  // Beyond what a server can parse nothing lies, but how long the needle is has to be told.
  if (asked_ == Asked::kRange && (wanted_.stat || wanted_.offset_bytes > kLastOffset)) {
    asked_ = Asked::kHead;
  }
  if (asked_ == Asked::kEncoding || asked_ == Asked::kStored) {
    request.headers.push_back("Accept-Encoding: gzip");
  }
  if (asked_ == Asked::kHead || asked_ == Asked::kEncoding) {
    request.method = HttpClient::Method::kHead;
  }
  if (asked_ != Asked::kRange) return request;
  const std::uint64_t room = kLastOffset - wanted_.offset_bytes;
  const std::uint64_t last =
      wanted_.offset_bytes + std::min<std::uint64_t>(wanted_.destination.size() - 1, room);
  request.headers.push_back("Range: bytes=" + std::to_string(wanted_.offset_bytes) + "-" +
                            std::to_string(last));
  return request;
}

void HttpRead::look_at(const HttpHead& head) {
  etag_crc_ = parse_etag(head.header("ETag"));
  chunk_manifest_ = head.header("X-File-Store") == "chunked";
  std::uint64_t length = 0;
  if (asked_ == Asked::kHead && parse_whole(head.header("Content-Length"), length)) {
    total_bytes_ = length;
    total_known_ = true;
  }
  if (!wanted_.stat) return;
  const std::string modified(head.header("Last-Modified"));
  const time_t seconds = modified.empty() ? -1 : ::curl_getdate(modified.c_str(), nullptr);
  modified_s_ = seconds > 0 ? static_cast<std::uint64_t>(seconds) : 0;
  name_ = parse_file_name(head.header("Content-Disposition"));
  mime_ = std::string(head.header("Content-Type"));
}

bool HttpRead::begin(const HttpHead& head) {
  status_ = head.status();
  taken_bytes_ = 0;
  crc_ = 0;
  if (status_ != 200 && status_ != 206) return true;  // the body is passed over
  encoded_ = head.header("Content-Encoding") == "gzip";
  stored_.clear();
  look_at(head);
  return asked_ != Asked::kRange || begin_range(head);
}

/// Says how many bytes will come, and refuses an answer to another question.
bool HttpRead::begin_range(const HttpHead& head) {
  if (!head.header("Content-Encoding").empty()) {
    fault_ = "it answers in an encoding nobody asked for";
    return false;
  }
  if (status_ == 200) {
    // No range: all of it, from the start.
    std::uint64_t length = 0;
    if (wanted_.offset_bytes != 0 || !parse_whole(head.header("Content-Length"), length)) {
      fault_ = "it does not answer the range that was asked for";
      return false;
    }
    total_bytes_ = length;
  } else {
    const std::optional<ContentRange> range = parse_content_range(head.header("Content-Range"));
    const std::uint64_t asked_end =
        range ? std::min<std::uint64_t>(range->total - std::min(range->total, range->start),
                                        wanted_.destination.size())
              : 0;
    if (!range || range->start != wanted_.offset_bytes || range->end - range->start != asked_end) {
      fault_ = "it does not answer the range that was asked for";
      return false;
    }
    total_bytes_ = range->total;
  }
  total_known_ = true;
  expected_bytes_ =
      std::min<std::uint64_t>(total_bytes_ - wanted_.offset_bytes, wanted_.destination.size());
  return true;
}

bool HttpRead::take(std::span<const std::byte> part) {
  if (status_ != 200 && status_ != 206) return true;
  if (asked_ != Asked::kRange) return take_stored(part);
  if (part.size() > expected_bytes_ - taken_bytes_) {
    // All of a needle that goes on beyond the buffer: what was wanted is there.
    if (status_ == 206) fault_ = "it sends more than it announced";
    part = part.first(expected_bytes_ - taken_bytes_);
    if (status_ == 206 || part.empty()) return false;
  }
  std::memcpy(wanted_.destination.data() + taken_bytes_, part.data(), part.size());
  crc_ = crc32c_extend(crc_, part);
  taken_bytes_ += part.size();
  return true;
}

bool HttpRead::take_stored(std::span<const std::byte> part) {
  if (part.size() > kMostStoredBytes - stored_.size()) {
    stored_too_long_ = true;
    return false;
  }
  stored_.insert(stored_.end(), part.begin(), part.end());
  return true;
}

/// Once it has begun, an answer that breaks off or makes no sense may be about this needle: pairs
/// are headers of their uploader's choice, and a damaged record is sent until that is found out.
HttpRead::Result HttpRead::broken(std::string why) const {
  Result result;
  result.outcome.status = KELP_UNAVAILABLE;
  result.failure =
      status_ == 0 ? CircuitBreaker::Failure::kNoAnswer : CircuitBreaker::Failure::kServerError;
  result.reason = std::move(why);
  return result;
}

HttpRead::Result HttpRead::finish(const HttpAnswer& answer) {
  Result result = judge(answer);
  // Whichever server is next is asked for all of it.
  if (result.verdict != Verdict::kAskMore) asked_ = Asked::kRange;
  return result;
}

HttpRead::Result HttpRead::judge(const HttpAnswer& answer) {
  if (stored_too_long_) {
    Result result;
    result.verdict = Verdict::kDone;
    result.outcome.status = KELP_BROKEN_GZIP;
    return result;
  }
  if (!fault_.empty()) return broken(fault_);
  const bool cut_on_purpose = answer.status == 0 && status_ == 200 && total_known_ &&
                              taken_bytes_ == expected_bytes_ && asked_ == Asked::kRange &&
                              expected_bytes_ < total_bytes_;
  if (answer.status == 0 && !cut_on_purpose) {
    Result result = broken(answer.error);
    if (!answer.reached) result.failure = CircuitBreaker::Failure::kUnreachable;
    return result;
  }
  const int status = cut_on_purpose ? status_ : answer.status;
  if (status == 200 || status == 206) {
    switch (asked_) {
      case Asked::kRange:
        return judge_range(answer);
      case Asked::kHead:
        return judge_head();
      case Asked::kEncoding:
        return judge_encoding();
      case Asked::kStored:
        return judge_stored();
    }
  }
  Result result;
  result.reason = "it answers " + std::to_string(status);
  switch (status) {
    case 401:
      result.verdict = Verdict::kDone;
      result.outcome.status = KELP_DENIED;
      return result;
    case 404:
      result.verdict = Verdict::kNotHere;
      result.outcome.status = KELP_NOT_FOUND;
      return result;
    case 416:
      if (asked_ == Asked::kRange) return ask_more(Asked::kHead);
      break;
    case 500:
      result.outcome.status = KELP_CORRUPT;
      result.failure = CircuitBreaker::Failure::kServerError;
      return result;
    default:
      break;
  }
  result.redirected = status >= 300 && status < 400;
  result.outcome.status = KELP_UNAVAILABLE;
  if (status >= 500 || status == 429) result.failure = CircuitBreaker::Failure::kNoAnswer;
  return result;
}

HttpRead::Result HttpRead::ask_more(Asked what) {
  asked_ = what;
  first_etag_crc_ = etag_crc_;
  Result result;
  result.verdict = Verdict::kAskMore;
  return result;
}

/// No bytes, and a checksum of some: a compressed needle of nothing, or one that cannot be
/// inflated, for which SeaweedFS answers 200 and no bytes, too.
bool HttpRead::is_empty_and_stored() const noexcept {
  return total_bytes_ == 0 && !chunk_manifest_ && etag_crc_ && *etag_crc_ != 0;
}

HttpRead::Result HttpRead::judge_range(const HttpAnswer& answer) {
  if (taken_bytes_ != expected_bytes_) {
    return broken("it ends after " + std::to_string(taken_bytes_) + " of " +
                  std::to_string(expected_bytes_) + " bytes" +
                  (answer.error.empty() ? "" : ": " + answer.error));
  }
  if (is_empty_and_stored()) return ask_more(Asked::kStored);
  Result result;
  result.verdict = Verdict::kDone;
  settle_range(wanted_.offset_bytes, wanted_.destination.size(), total_bytes_, result.outcome);
  const bool whole = wanted_.offset_bytes == 0 && taken_bytes_ == total_bytes_ && taken_bytes_ > 0;
  if (!whole || chunk_manifest_ || !etag_crc_) return result;
  if (checksum_matches(*etag_crc_, crc_)) {
    result.outcome.flags |= KELP_FLAG_CRC_VERIFIED;
    return result;
  }
  // The ETag covers what is stored: of a compressed needle something else.
  unproven_ = result.outcome;
  return ask_more(Asked::kEncoding);
}

HttpRead::Result HttpRead::judge_encoding() {
  Result result;
  if (etag_crc_ != first_etag_crc_) {
    result.outcome.status = KELP_UNAVAILABLE;
    result.reason = "the needle changes while it is read";
  } else if (!encoded_) {
    result.outcome.status = KELP_CORRUPT;
    result.failure = CircuitBreaker::Failure::kServerError;
    result.reason = "its bytes do not fit their checksum";
  } else {
    result.verdict = Verdict::kDone;
    result.outcome = unproven_;
  }
  return result;
}

HttpRead::Result HttpRead::judge_stored() {
  Result result;
  if (etag_crc_ != first_etag_crc_ || !etag_crc_ ||
      !checksum_matches(*etag_crc_, crc32c(stored_))) {
    result.outcome.status = KELP_UNAVAILABLE;
    result.reason =
        "the needle changes while it is read, or what it stores does not fit its checksum";
    return result;
  }
  GzipInflater inflater;
  inflater.reset(stored_, GzipLimits{});
  std::byte one;
  GzipInflater::Turn turn;
  do {
    turn = inflater.inflate(std::span(&one, 1));
  } while (turn.state == GzipInflater::State::kMore && turn.bytes_produced == 0);
  result.verdict = Verdict::kDone;
  total_bytes_ = 0;
  if (turn.state != GzipInflater::State::kEnd || turn.bytes_produced != 0) {
    result.outcome.status = KELP_BROKEN_GZIP;
  } else if (wanted_.stat) {
    write_stat(result.outcome);
  } else {
    settle_range(wanted_.offset_bytes, wanted_.destination.size(), 0, result.outcome);
  }
  return result;
}

HttpRead::Result HttpRead::judge_head() {
  if (!total_known_) return broken("it does not say how long the needle is");
  if (is_empty_and_stored()) return ask_more(Asked::kStored);
  Result result;
  result.verdict = Verdict::kDone;
  if (wanted_.stat) {
    write_stat(result.outcome);
  } else if (wanted_.offset_bytes >= total_bytes_) {
    // The end itself is a range of no bytes; some servers refuse it like those beyond.
    settle_range(wanted_.offset_bytes, wanted_.destination.size(), total_bytes_, result.outcome);
  } else {
    // It has grown since the range was refused.
    result.verdict = Verdict::kElsewhere;
    result.outcome.status = KELP_UNAVAILABLE;
    result.reason = "the needle changes while it is read";
  }
  return result;
}

void HttpRead::write_stat(ReadOutcome& outcome) const {
  kelp_stat stat{};
  stat.total = total_bytes_;
  stat.crc32c = etag_crc_.value_or(0);
  stat.modified_s = modified_s_;
  const std::string_view name = std::string_view(name_).substr(0, UINT8_MAX);
  const std::string_view mime = std::string_view(mime_).substr(0, UINT8_MAX);
  stat.name_bytes = static_cast<std::uint8_t>(name.size());
  stat.mime_bytes = static_cast<std::uint8_t>(mime.size());
  if (modified_s_ != 0) stat.flags |= KELP_STAT_HAS_MODIFIED;
  if (!name.empty()) stat.flags |= KELP_STAT_HAS_NAME;
  if (!mime.empty()) stat.flags |= KELP_STAT_HAS_MIME;
  if (chunk_manifest_) stat.flags |= KELP_STAT_CHUNK_MANIFEST;
  std::string bytes(reinterpret_cast<const char*>(&stat), sizeof stat);
  bytes.append(name).append(mime);
  const std::size_t fits = std::min(bytes.size(), wanted_.destination.size());
  std::memcpy(wanted_.destination.data(), bytes.data(), fits);
  outcome.status = KELP_OK;
  outcome.bytes = static_cast<std::uint32_t>(fits);
  outcome.total_bytes = total_bytes_;
  if (fits < bytes.size()) outcome.flags |= KELP_FLAG_TRUNCATED;
}

}  // namespace kelp
