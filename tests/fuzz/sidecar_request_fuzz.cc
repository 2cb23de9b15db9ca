// What a client of the sidecar sends: the head of a request, its target, its parameters, its Range.
// Promises: whatever is refused has a sentence; nothing that is taken holds a NUL or a line end,
// so it can be put into another header or a hint; a part of a body lies inside it.
#include <algorithm>
#include <string>

#include "fuzz/fuzz.h"
#include "sidecar/byte_range.h"
#include "sidecar/http_date.h"
#include "sidecar/query.h"
#include "sidecar/read_params.h"
#include "sidecar/request_head.h"

using namespace kelp::sidecar;
using kelp::fuzz::must;

namespace {

bool holds(std::string_view text, char c) {
  return text.find(c) != std::string_view::npos;
}

void judge_range(std::string_view header) {
  for (const std::uint64_t total : {0ULL, 1ULL, 100ULL, ~0ULL}) {
    const ByteRange range = parse_byte_range(header, total);
    if (range.kind != ByteRange::Kind::kPart) continue;
    must(range.begin <= range.end && range.end <= total, "a part lies inside");
  }
}

void judge_target(std::span<char> target) {
  const char* problem = nullptr;
  const std::size_t whole = target.size();
  const auto query = Query::parse(target, problem);
  must(query || problem != nullptr, "a refusal has a sentence");
  if (!query) return;
  for (const auto& [name, value] : query->parameters()) {
    must(!holds(name, '\0') && !holds(value, '\0'), "no NUL comes through");
    must(name.size() + value.size() <= whole, "nothing grows");
  }
  std::string why;
  const auto params = parse_read_params(*query, why);
  must(params || !why.empty(), "a refusal has a sentence");
  if (params) must(params->offset <= UINT64_MAX - params->size, "the end can be said");
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::vector<char> bytes(data, data + size);  // no terminator: the sanitizer watches its end
  const std::size_t end = find_head_end({bytes.data(), bytes.size()}, 0);
  std::vector<char> head(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(end));
  if (end != 0 && end <= kMostHeadBytes) {
    const char* problem = nullptr;
    const auto request = parse_request_head(head, problem);
    must(request || problem != nullptr, "a refusal has a sentence");
    if (request) {
      for (const std::string_view value : {request->range, request->if_none_match,
                                           request->if_modified_since, request->authorization}) {
        must(!holds(value, '\0') && !holds(value, '\n'), "a header is one line");
      }
      judge_range(request->range);
      (void)parse_http_date(request->if_modified_since);
      judge_target(request->target);
    }
  }
  judge_range({bytes.data(), bytes.size()});
  judge_target(bytes);
  return 0;
}
