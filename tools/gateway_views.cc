#include "tools/gateway_views.h"

#include <nlohmann/json.hpp>

#include "tools/cells.h"
#include "tools/json_fields.h"

namespace kelp {
namespace {

using nlohmann::json;

/// The elements of a list; none where it is something else.
json elements(const json& object, const char* key) {
  const json& list = field(object, key);
  return list.is_array() ? list : json::array();
}

std::string places_text(const json& volume) {
  std::string text;
  for (const json& location : elements(volume, "locations")) {
    const std::string data_center = field_text(location, "data_center");
    text += (text.empty() ? "" : ", ") + field_text(location, "url");
    if (!data_center.empty() && data_center != "-") text += " (" + data_center + ")";
  }
  return text.empty() ? "-" : text;
}

}  // namespace

void add_gateway_facts(const json& gateway, FactList& facts) {
  for (const json& master : elements(gateway, "masters")) {
    const bool failing = !field(master, "failing_since_s").is_null();
    facts.add("master", {field_text(master, "url") +
                             (failing ? ", does not answer: " + field_text(master, "failure")
                                      : ", asked " + field_text(master, "asked") + " times"),
                         failing ? Tone::kBad : Tone::kGood});
  }
  for (const json& server : elements(gateway, "servers")) {
    const std::string breaker = field_text(server, "breaker");
    const std::string reason = field_text(server, "reason");
    const bool avoided = breaker != "closed";
    facts.add("remote", {field_text(server, "server") + " by " + field_text(server, "path") +
                             (avoided ? ", " + breaker + (reason.empty() ? "" : ": " + reason)
                                      : ", answered " + field_text(server, "reads") + " reads"),
                         avoided ? Tone::kBad : Tone::kGood});
  }
}

std::string view_remote_volumes(const json& remote, bool colour) {
  if (!remote.is_array() || remote.empty()) return "";
  Table table({{"REMOTE ID", true}, {"KNOWN"}, {"AGE", true}, {"SERVERS"}, {"ERROR"}});
  for (const json& volume : remote) {
    const bool known = field(volume, "known") == true;
    const std::string error = field_text(volume, "error");
    table.add({{field_text(volume, "id")},
               {field_text(volume, "known"), known ? Tone::kGood : Tone::kBad},
               {duration_field(volume, "age_s")},
               {places_text(volume)},
               {error == "-" ? "" : error}});
  }
  return "\n" + table.text(colour);
}

std::string view_remote_servers(const json& servers, bool colour) {
  if (!servers.is_array() || servers.empty()) return "";
  Table table({{"SERVER"},
               {"PATH"},
               {"BREAKER"},
               {"READS", true},
               {"FAILURES", true},
               {"BYTES", true},
               {"P50 (us)", true},
               {"P99 (us)", true}});
  for (const json& server : servers) {
    const std::string breaker = field_text(server, "breaker");
    table.add({{field_text(server, "server")},
               {field_text(server, "path")},
               {breaker, breaker == "closed" ? Tone::kGood : Tone::kBad},
               {field_text(server, "reads")},
               fault_cell(server, "failures"),
               bytes_cell(server, "bytes"),
               {field_text(server, "p50_us")},
               {field_text(server, "p99_us")}});
  }
  return "\n" + table.text(colour, 2);
}

}  // namespace kelp
