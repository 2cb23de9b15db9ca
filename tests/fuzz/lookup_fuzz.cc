// What masters answer about a volume, and server addresses as anybody writes them.
// Input: status u16, then the body; the same bytes are a server address, too.
// Promises: a known volume has servers, each once and by its one text; everything else says why, in
// few words; the text of an address is that address, and no other text of it is shorter.
#include <set>

#include "control/gateway/lookup_cache.h"
#include "control/gateway/server_address.h"
#include "fuzz/fuzz.h"

using namespace kelp;
using kelp::fuzz::must;

namespace {

bool is_plain(const std::string& text) {
  return std::ranges::all_of(text, [](char c) { return c >= ' ' && c <= '~'; });
}

bool is_canonical(const std::string& text) {
  const auto address = parse_server_address(text);
  return address.has_value() && address->text() == text;
}

void judge_address(const std::string& text) {
  const auto address = parse_server_address(text);
  if (!address) {
    const std::string& why = address.error().what;
    must(!why.empty() && why.size() < 300 && is_plain(why), "a refusal is short and printable");
    return;
  }
  const std::string canonical = address->text();
  must(address->port != 0 && !address->host.empty(), "an address has a host and a port");
  must(is_plain(canonical) && canonical.find_first_of(" /@%?#\\") == std::string::npos,
       "an address is nothing but an address");
  must(canonical.size() <= text.size(), "no other text of it is shorter");
  const auto again = parse_server_address(canonical);
  must(again.has_value() && *again == *address, "text and parse are inverse");
  must(is_canonical(canonical), "a canonical text is its own");
  const auto dressed = parse_server_address("https://" + canonical + "/");
  must(dressed.has_value() && *dressed == *address, "scheme and slash mean nothing");
}

void judge_answer(int status, const std::string& body) {
  const auto answer = parse_lookup(status, body);
  if (!answer) {
    must(!answer.error().what.empty(), "a refusal says why");
    return;
  }
  must(status == 200 || status == 404, "other statuses are no answers");
  must(answer->state != LookupCache::State::kNoMaster, "an answer is one of a master");
  const bool known = answer->state == LookupCache::State::kKnown;
  must(known == !answer->locations.empty(), "a known volume has servers");
  must(known == answer->error.empty() && answer->error.size() <= 300, "all else says why");
  must(!known || status == 200, "404 names no servers");
  std::set<std::string> urls;
  for (const Location& location : answer->locations) {
    must(is_canonical(location.url) && is_canonical(location.public_url), "servers have one text");
    must(urls.insert(location.url).second, "each server is named once");
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fuzz::Input input(data, size);
  const auto status = input.take<std::uint16_t>();
  const std::string text = fuzz::text_of(input.rest());
  judge_address(text);
  judge_answer(status, text);
  judge_answer(status % 2 == 0 ? 200 : 404, text);  // other statuses are soon seen through
  return 0;
}
