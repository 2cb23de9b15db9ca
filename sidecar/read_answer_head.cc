// What an answer says before its bytes, and answers that are all text.
#include <ctime>
#include <utility>

#include "sidecar/content_type.h"
#include "sidecar/pages.h"
#include "sidecar/read_answer.h"

namespace kelp::sidecar {

/// Whether the connection goes on, and the empty line; the answer may be sent.
void Reads::end_head(Exchange& exchange, AnswerHead& head) {
  if (!exchange.keep_alive) {
    head.line("Connection", "close");
  } else if (exchange.http_1_0) {
    head.line("Connection", "keep-alive");
  }
  exchange.head_bytes = head.end();
  exchange.stage = Exchange::Stage::kAnswering;
  exchange.answering = true;
}

bool Reads::marked(kelp_path path) const noexcept {
  switch (mount_accepts_) {
    case MountAccepts::kAny:
      return path != KELP_PATH_NONE;
    case MountAccepts::kDataplane:
      return path != KELP_PATH_NONE && path != KELP_PATH_HTTP;
    case MountAccepts::kRdma:
      return path == KELP_PATH_VERBS;
  }
  return false;
}

void Reads::write_about(AnswerHead& head, const Exchange& exchange) {
  std::array<char, 10> etag;
  write_etag(exchange.about.crc32c, etag);
  head.line("ETag", std::string_view(etag.data(), etag.size()));
  if (exchange.about.modified_s != 0) {
    std::array<char, kHttpDateBytes> date;
    write_http_date(static_cast<std::int64_t>(exchange.about.modified_s), date);
    head.line("Last-Modified", std::string_view(date.data(), date.size()));
  }
}

void Reads::write_head(Exchange& exchange, int status, std::uint64_t content_bytes, kelp_path path,
                       std::string_view temp_file) {
  AnswerHead head(exchange.head);
  head.status(status);
  head.line("Date", date_.now(std::time(nullptr)));
  const bool told = status_of(exchange.stat) == KELP_OK && exchange.pieces[0].slab != nullptr;
  if (told) write_about(head, exchange);
  if (status != 304) {
    std::string_view mime;
    std::string_view name;
    if (told) {
      const auto* const texts =
          static_cast<const char*>(exchange.pieces[0].slab->stat()) + sizeof(kelp_stat);
      name = {texts, exchange.about.name_bytes};
      mime = {texts + exchange.about.name_bytes, exchange.about.mime_bytes};
    }
    head.line("Content-Type", content_type(mime, name));
    head.line("Content-Length", content_bytes);
    head.line("Accept-Ranges", "bytes");
    head.line("X-Source", source_name(path));
    head.line("X-Kelp-Path", kelp_path_name(path));
    if (marked(path)) head.line("X-RDMA-Used", "true");
    if (!temp_file.empty()) {
      head.line("X-Use-Temp-File", "true");
      head.line("X-Temp-File", temp_file);
    }
  }
  if (exchange.partial && status == 206) {
    const std::uint64_t first = exchange.begin - exchange.range_base;
    // An empty range ends before it begins: so a volume server writes it, too.
    head.line("Content-Range",
              "bytes " + std::to_string(first) + "-" +
                  std::to_string(static_cast<std::int64_t>(first + content_bytes - 1)) + "/" +
                  std::to_string(exchange.range_total));
  }
  if (exchange.kind == Exchange::Kind::kRdmaRead && status == 200) {
    write_rdma_lines(head, Clock::now() - exchange.arrived, content_bytes);
  }
  end_head(exchange, head);
}

void Reads::answer_text(Exchange& exchange, int status, std::string_view type, std::string text,
                        std::string_view allow) {
  AnswerHead head(exchange.head);
  head.status(status);
  head.line("Date", date_.now(std::time(nullptr)));
  head.line("Content-Type", type);
  head.line("Content-Length", std::uint64_t{text.size()});
  head.line("Cache-Control", "no-store");
  if (!allow.empty()) head.line("Allow", allow);
  if (status == 416) {
    head.line("Content-Range", "bytes */" + std::to_string(exchange.range_total));
  }
  end_head(exchange, head);
  if (!exchange.head_only) exchange.text = std::move(text);
  if (status >= 500) {
    counters_.failed.add();
  } else if (status >= 400) {
    counters_.refused.add();
  }
}

void Reads::answer_error(Exchange& exchange, int status, std::string_view sentence) {
  answer_text(exchange, status, kJsonType, error_json(sentence));
}

void Reads::answer_too_far(Exchange& exchange, std::uint64_t total) {
  exchange.range_total = total;
  answer_error(exchange, 416,
               exchange.range.empty()
                   ? "the needle has " + std::to_string(total) + " bytes, and not so many"
                   : "Range does not fit " + std::to_string(total) + " bytes");
}

void Reads::answer_too_costly(Exchange& exchange) {
  answer_error(exchange, 503,
               "the needle is stored compressed and has " + std::to_string(exchange.about.total) +
                   " bytes, all of which are inflated for each piece of an answer: ask for parts "
                   "of up to 1 MiB, or its volume server for the whole");
}

void Reads::answer_status(Exchange& exchange, kelp_status status) {
  switch (status) {
    case KELP_NOT_FOUND:
    case KELP_WRONG_COOKIE:
    case KELP_EXPIRED:
      return answer_error(exchange, 404, kelp_status_text(status));
    case KELP_DENIED:
      return answer_error(exchange, 401, kelp_status_text(status));
    case KELP_INVALID:
      return answer_error(exchange, 400, kelp_status_text(status));
    case KELP_CORRUPT:
    case KELP_BROKEN_GZIP:
      return answer_error(exchange, 500, kelp_status_text(status));
    case KELP_DEADLINE:
      return answer_error(exchange, 504, kelp_status_text(status));
    default:
      return answer_error(exchange, 503, kelp_status_text(status));
  }
}

}  // namespace kelp::sidecar
