#include "tools/control_views.h"

#include <nlohmann/json.hpp>

#include "tools/cells.h"
#include "tools/gateway_views.h"
#include "tools/json_fields.h"
#include "tools/table.h"

namespace kelp {
namespace {

using nlohmann::json;

Cell status_cell(const std::string& status) {
  if (status == "healthy" || status == "serving") return {status, Tone::kGood};
  if (status == "failed" || status == "refused") return {status, Tone::kBad};
  return {status, Tone::kWarning};
}

std::string volume_counts(const json& volumes) {
  std::string text;
  for (const char* state : {"serving", "revoked", "loading", "use_http", "refused"}) {
    if (!text.empty()) text += ", ";
    text += field_text(volumes, state) + " " + state;
  }
  return text;
}

void add_sentences(const json& sentences, const char* label, Tone tone, FactList& facts) {
  if (!sentences.is_array()) return;
  for (const json& sentence : sentences) facts.add(label, {cell_text(sentence), tone});
}

/// One line per volume server: whether it answers, and what it has.
void add_servers(const json& servers, FactList& facts) {
  if (!servers.is_array()) return;
  for (const json& server : servers) {
    const std::string failure = field_text(server, "failure");
    const bool failing = !field(server, "failing_since").is_null();
    facts.add("server", {field_text(server, "url") +
                             (failing ? ", does not answer: " + failure
                                      : ", has " + field_text(server, "volumes") + " volumes"),
                         failing ? Tone::kBad : Tone::kGood});
  }
}

/// "cpu 1" or "not pinned".
std::string worker_place(const json& worker) {
  const auto cpu = field_count(worker, "cpu");
  return cpu ? "cpu " + std::to_string(*cpu) : "not pinned";
}

void add_counters(const json& counters, std::string& text, bool colour) {
  if (!counters.is_object() || counters.empty()) return;
  Table table({{"COUNTER"}, {"VALUE", true}});
  for (const auto& [name, value] : counters.items()) table.add({{name}, {cell_text(value)}});
  text += "\n" + table.text(colour, 2);
}

void add_latencies(const json& latencies, std::string& text, bool colour) {
  if (!latencies.is_object() || latencies.empty()) return;
  Table table({{"LATENCY (us)"},
               {"COUNT", true},
               {"P50", true},
               {"P90", true},
               {"P99", true},
               {"P99.9", true},
               {"MAX", true}});
  for (const auto& [name, row] : latencies.items()) {
    std::vector<Cell> cells{{name}};
    for (const char* column : {"count", "p50", "p90", "p99", "p999", "max"}) {
      cells.push_back({field_text(row, column)});
    }
    table.add(std::move(cells));
  }
  text += "\n" + table.text(colour, 2);
}

}  // namespace

std::string view_health(const json& health, bool colour) {
  FactList facts;
  facts.add("status", status_cell(field_text(health, "status")));
  add_sentences(field(health, "reasons"), "because", Tone::kWarning, facts);
  facts.add("version", {field_text(health, "version")});
  facts.add("pid", {field_text(health, "pid")});
  facts.add("up", {duration_field(health, "uptime_s")});
  facts.add("workers", {field_text(health, "workers")});
  facts.add("clients", {field_text(health, "clients")});
  facts.add("volumes", {volume_counts(field(health, "volumes"))});
  facts.add("attested", {field_text(health, "attested")});
  add_servers(field(health, "volume_servers"), facts);
  add_gateway_facts(field(health, "gateway"), facts);
  add_sentences(field(health, "notes"), "note", Tone::kPlain, facts);
  return facts.text(colour);
}

std::string view_volumes(const json& volumes, bool colour) {
  const std::string remote = view_remote_volumes(field(volumes, "remote"), colour);
  const json& list = field(volumes, "volumes");
  if (!list.is_array() || list.empty()) {
    return (remote.empty() ? "no volumes\n" : "no volumes on this host\n") + remote;
  }
  Table table({{"ID", true},
               {"COLLECTION"},
               {"STATE"},
               {"ATTESTED"},
               {"SERVER"},
               {"VERSION", true},
               {"OFFSETS", true},
               {"REVISION", true},
               {"GENERATION", true},
               {"NEEDLES", true},
               {"DAT", true},
               {"IDX", true},
               {"READS", true},
               {"CORRUPT", true},
               {"DIRECTORY"},
               {"REASON"}});
  for (const json& volume : list) {
    const std::string reason = field_text(volume, "reason");
    table.add({{field_text(volume, "id")},
               {field_text(volume, "collection")},
               status_cell(field_text(volume, "state")),
               {field_text(volume, "attested")},
               {field_text(volume, "volume_server")},
               {field_text(volume, "version")},
               bytes_cell(volume, "offset_bytes"),
               {field_text(volume, "revision")},
               {field_text(volume, "generation")},
               {field_text(volume, "needles")},
               bytes_cell(volume, "dat_bytes"),
               bytes_cell(volume, "idx_bytes"),
               {field_text(volume, "reads")},
               fault_cell(volume, "corrupt"),
               {field_text(volume, "dir")},
               {reason == "-" ? "" : reason}});
  }
  return table.text(colour) + remote;
}

std::string view_stats(const json& stats, bool colour) {
  std::string text = "up " + printable(duration_field(stats, "uptime_s")) + "\n";
  const json& workers = field(stats, "workers");
  for (const json& worker : workers.is_array() ? workers : json::array()) {
    text += "\nworker " + printable(field_text(worker, "id")) + ": " + worker_place(worker) +
            ", polling " + printable(field_text(worker, "polling")) + ", CPU time " +
            printable(field_text(worker, "cpu_time_s")) + " s\n";
    add_counters(field(worker, "counters"), text, colour);
    add_latencies(field(worker, "latency_us"), text, colour);
  }
  const json& gateway = field(stats, "gateway");
  if (!gateway.is_object()) return text;
  text += "\ngateway:\n";
  add_counters(field(gateway, "counters"), text, colour);
  return text + view_remote_servers(field(gateway, "servers"), colour);
}

std::string view_clients(const json& clients, bool colour) {
  const json& list = field(clients, "clients");
  if (!list.is_array() || list.empty()) return "no clients\n";
  Table table({{"ID", true},
               {"NAME"},
               {"PID", true},
               {"UID", true},
               {"FOR", true},
               {"CHANNELS", true},
               {"DATA", true},
               {"PAGES", true},
               {"IN FLIGHT", true},
               {"BYTES", true},
               {"STATE"}});
  for (const json& client : list) {
    const bool leaving = field(client, "leaving") == true;
    table.add({{field_text(client, "id")},
               {field_text(client, "name")},
               {field_text(client, "pid")},
               {field_text(client, "uid")},
               {duration_field(client, "attached_s")},
               {field_text(client, "channels")},
               bytes_cell(client, "data_bytes"),
               bytes_cell(client, "page_bytes"),
               {field_text(client, "in_flight")},
               bytes_cell(client, "in_flight_bytes"),
               {leaving ? "leaving" : "attached", leaving ? Tone::kWarning : Tone::kPlain}});
  }
  return table.text(colour);
}

std::string view_reload(const json& reload, bool colour) {
  Table table({{"KEY"}, {"FROM"}, {"TO"}, {""}});
  const auto add = [&](const char* list, const char* what, Tone tone) {
    const json& changes = field(reload, list);
    if (!changes.is_array()) return;
    for (const json& change : changes) {
      table.add({{field_text(change, "key")},
                 {field_text(change, "from")},
                 {field_text(change, "to")},
                 {what, tone}});
    }
  };
  add("applied", "applied", Tone::kGood);
  add("needs_restart", "needs a restart", Tone::kWarning);
  return table.empty() ? "reloaded, nothing differs\n" : table.text(colour);
}

std::string view_status(const json& answer, bool) {
  return printable(field_text(answer, "status")) + "\n";
}

std::string view_config(const json& config, bool colour) {
  const json& items = field(config, "items");
  if (!items.is_array() || items.empty()) return "no items\n";
  Table table({{"KEY"}, {"VALUE"}, {"ORIGIN"}, {"RELOAD"}});
  for (const json& item : items) {
    const bool pending = !field(item, "after_restart").is_null();
    const bool reloadable = field(item, "reloadable") == true;
    table.add({{field_text(item, "key")},
               {field_text(item, "value")},
               {field_text(item, "origin")},
               {pending      ? "restart for " + field_text(item, "after_restart")
                : reloadable ? "yes"
                             : "",
                pending ? Tone::kWarning : Tone::kPlain}});
  }
  return table.text(colour);
}

}  // namespace kelp
