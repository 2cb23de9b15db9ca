// parse_lookup(): what a master's answer to /dir/lookup says.
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>

#include "control/gateway/lookup_cache.h"
#include "control/gateway/server_address.h"

namespace kelp {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMaxErrorBytes = 300;
/// An honest answer has three levels. A mebibyte of "[" would become hundreds of times its size.
constexpr int kMaxDepth = 8;

/// What is no JSON, or too deep, is discarded.
Json parse_shallow(const std::string& body) {
  bool too_deep = false;
  const auto keep = [&too_deep](int depth, Json::parse_event_t, Json&) {
    too_deep = too_deep || depth > kMaxDepth;
    return !too_deep;
  };
  Json document = Json::parse(body, keep, false);
  return too_deep ? Json(Json::value_t::discarded) : document;
}

std::string text(const Json& object, const char* name) {
  const auto found = object.find(name);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<Location> parse_location(const Json& entry) {
  if (!entry.is_object()) return std::nullopt;
  const auto address = parse_server_address(text(entry, "url"));
  if (!address) return std::nullopt;
  const auto public_address = parse_server_address(text(entry, "publicUrl"));
  Location location;
  location.url = address->text();
  location.public_url = public_address ? public_address->text() : location.url;
  location.data_center = text(entry, "dataCenter");
  return location;
}

LookupCache::Answer unknown(std::string error) {
  if (error.empty() || error.size() > kMaxErrorBytes) error = "the master knows no such volume";
  LookupCache::Answer answer;
  answer.state = LookupCache::State::kUnknownVolume;
  answer.error = std::move(error);
  return answer;
}

Result<LookupCache::Answer> parse_locations(const Json& document) {
  const auto entries = document.find("locations");
  // An empty list is left out where it is written.
  if (entries == document.end() || entries->is_null()) return unknown(text(document, "error"));
  if (!entries->is_array()) return plain_error("its answer's locations are no list");
  if (entries->empty()) return unknown(text(document, "error"));
  LookupCache::Answer answer;
  answer.state = LookupCache::State::kKnown;
  std::unordered_set<std::string> seen;
  for (const Json& entry : *entries) {
    auto location = parse_location(entry);
    if (location && seen.insert(location->url).second) {
      answer.locations.push_back(std::move(*location));
    }
  }
  if (answer.locations.empty()) {
    return plain_error("its answer names no server with an address like \"10.0.0.1:8080\"");
  }
  return answer;
}

}  // namespace

Result<LookupCache::Answer> parse_lookup(int http_status, const std::string& body) {
  if (http_status != 200 && http_status != 404) {
    return plain_error("/dir/lookup was answered with " + std::to_string(http_status));
  }
  if (body.size() > kMaxLookupBytes) return plain_error("its answer is larger than 1 MiB");
  const Json document = parse_shallow(body);
  if (!document.is_object()) {
    return plain_error("its answer to /dir/lookup is no JSON object: is it a master?");
  }
  if (http_status == 200) return parse_locations(document);
  // Any server may answer with 404 about a path it has never heard of; a master says why.
  if (text(document, "error").empty()) {
    return plain_error("/dir/lookup was answered with 404 and no error: is it a master?");
  }
  return unknown(text(document, "error"));
}

}  // namespace kelp
