#include "tools/bench/report.h"

#include <array>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "tools/bench/samples.h"
#include "tools/table.h"
#include "tools/units.h"

namespace kelp::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Percentile {
  const char* name;
  double fraction;
};
constexpr std::array<Percentile, 6> kPercentiles = {
    {{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}, {"max", 1}}};

double us(std::uint64_t ns) {
  return static_cast<double>(ns) / 1000;
}

std::string decimal(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

/// "812 k", "3.1 M": three figures are what a measurement is worth.
std::string human_count(double value) {
  if (value < 10'000) return decimal(value, 0);
  return value < 1e6 ? decimal(value / 1e3, 1) + " k" : decimal(value / 1e6, 2) + " M";
}

std::string latency_text(std::uint64_t ns) {
  const double value = us(ns);
  return decimal(value, value < 100 ? 2 : value < 1000 ? 1 : 0) + " us";
}

std::string spread(const std::vector<double>& ratios) {
  return decimal(median(ratios), 2) + "  (" + decimal(quantile(ratios, 0.25), 2) + " - " +
         decimal(quantile(ratios, 0.75), 2) + ")";
}

std::string paths_text(const Tally& tally) {
  std::string text;
  for (std::size_t i = 0; i < tally.paths.size(); ++i) {
    if (tally.paths[i] == 0) continue;
    text += text.empty() ? "" : ", ";
    text += kelp_path_name(static_cast<kelp_path>(i));
    text += " " + std::to_string(tally.paths[i]);
  }
  return text.empty() ? "-" : text;
}

Cell errors_cell(const Tally& tally) {
  std::string text;
  for (const auto& [name, count] : tally.errors) {
    text += (text.empty() ? "" : ", ") + name + " " + std::to_string(count);
  }
  return text.empty() ? Cell{"none", Tone::kGood} : Cell{text, Tone::kBad};
}

Cell bytes_cell(const Results& results, const Tally& tally) {
  if (!results.verified) return {"not compared (--verify)", Tone::kPlain};
  if (tally.wrong == 0) return {"every byte as expected", Tone::kGood};
  return {std::to_string(tally.wrong) + " answers WRONG, first " + tally.first_wrong, Tone::kBad};
}

/// A row per fact, a column per side.
class Sides {
 public:
  Sides(const Results& results, bool colour) : results_(results), colour_(colour) {}

  template <class Text>
  void add(const char* label, Text text, const std::vector<double>* ratios = nullptr) {
    std::vector<Cell> row{{label}, {text(results_.kelp)}};
    if (results_.http) {
      row.push_back({text(*results_.http)});
      if (ratios != nullptr && !ratios->empty()) row.push_back({spread(*ratios)});
    }
    rows_.push_back(std::move(row));
  }

  std::string text() const {
    std::vector<Column> columns{{"", false}, {results_.http ? "Kelp" : "", true}};
    if (results_.http) columns.insert(columns.end(), {{"HTTP", true}, {"Kelp is better by", true}});
    Table table(columns);
    for (const auto& row : rows_) table.add(row);
    const std::string text = table.text(colour_);
    // Without a second side the header row says nothing.
    return results_.http ? text : text.substr(text.find('\n') + 1);
  }

 private:
  const Results& results_;
  bool colour_;
  std::vector<std::vector<Cell>> rows_;
};

std::string figures(const Results& results, bool colour) {
  Sides sides(results, colour);
  sides.add("reads", [](const Measured& m) { return std::to_string(m.tally.latency.count()); });
  sides.add(
      "reads/s", [](const Measured& m) { return human_count(m.reads_per_s()); },
      &results.ratios.reads_per_s);
  sides.add("bytes/s", [](const Measured& m) {
    return human_bytes(static_cast<std::uint64_t>(m.bytes_per_s()));
  });
  sides.add(
      "reads per CPU-second",
      [](const Measured& m) {
        const auto rate = m.reads_per_cpu_s();
        return rate ? human_count(*rate) : std::string("-");
      },
      &results.ratios.per_cpu_s);
  for (const Percentile& percentile : kPercentiles) {
    const double fraction = percentile.fraction;
    sides.add(
        percentile.name,
        [fraction](const Measured& m) { return latency_text(m.tally.latency.quantile(fraction)); },
        fraction == 0.5    ? &results.ratios.p50
        : fraction == 0.99 ? &results.ratios.p99
                           : nullptr);
  }
  return sides.text();
}

Json optional_number(const std::optional<double>& value) {
  return value ? Json(*value) : Json(nullptr);
}

Json side_json(const Measured& measured) {
  const Tally& tally = measured.tally;
  const std::uint64_t reads = tally.latency.count();
  Json side;
  side["reads"] = reads;
  side["bytes"] = tally.bytes;
  side["seconds"] = measured.seconds;
  side["reads_per_s"] = measured.reads_per_s();
  side["bytes_per_s"] = measured.bytes_per_s();
  side["client_cpu_s"] = measured.client_cpu_s;
  side["server_cpu_s"] = optional_number(measured.server_cpu_s);
  side["reads_per_cpu_s"] = optional_number(measured.reads_per_cpu_s());
  Json& latency = side["latency_us"];
  for (const Percentile& percentile : kPercentiles) {
    latency[percentile.name] = us(tally.latency.quantile(percentile.fraction));
  }
  latency["mean"] = reads == 0 ? 0 : us(tally.latency_sum_ns) / static_cast<double>(reads);
  side["paths"] = Json::object();
  for (std::size_t i = 0; i < tally.paths.size(); ++i) {
    if (tally.paths[i] == 0) continue;
    side["paths"][kelp_path_name(static_cast<kelp_path>(i))] = tally.paths[i];
  }
  side["errors"] = Json::object();
  for (const auto& [name, count] : tally.errors) side["errors"][name] = count;
  side["wrong"] = tally.wrong;
  side["crc_verified"] = tally.crc_verified;
  side["truncated"] = tally.truncated;
  return side;
}

Json ratio_json(const std::vector<double>& ratios) {
  if (ratios.empty()) return nullptr;
  return {{"median", median(ratios)},
          {"low", quantile(ratios, 0.25)},
          {"high", quantile(ratios, 0.75)},
          {"pairs", ratios.size()}};
}

Json options_json(const Options& options) {
  constexpr std::array<const char*, 3> kOrders = {"sequential", "random", "zipf"};
  Json json;
  json["depth"] = options.depth;
  json["batch"] = options.batch;
  json["threads"] = options.threads;
  json["order"] = kOrders[static_cast<std::size_t>(options.order.kind)];
  if (options.order.kind == OrderKind::kZipf) json["theta"] = options.order.theta;
  json["seed"] = options.order.seed;
  json["size"] = options.size;
  if (options.range.length != 0) {
    json["range"] = {
        {"offset", options.range.random_offset ? Json("random") : Json(options.range.offset)},
        {"length", options.range.length}};
  }
  json["sleep"] = options.sleep;
  return json;
}

}  // namespace

void PairRatios::add(const Measured& kelp, const Measured& http) {
  const auto better = [](double numerator, double denominator, std::vector<double>& into) {
    if (numerator > 0 && denominator > 0) into.push_back(numerator / denominator);
  };
  const auto latency = [](const Measured& side, double fraction) {
    return static_cast<double>(side.tally.latency.quantile(fraction));
  };
  better(latency(http, 0.5), latency(kelp, 0.5), p50);
  better(latency(http, 0.99), latency(kelp, 0.99), p99);
  better(kelp.reads_per_s(), http.reads_per_s(), reads_per_s);
  better(kelp.reads_per_cpu_s().value_or(0), http.reads_per_cpu_s().value_or(0), per_cpu_s);
}

std::string report_table(const Results& results, bool colour) {
  FactList facts;
  facts.add("objects", {std::to_string(results.objects)});
  facts.add("bytes", bytes_cell(results, results.kelp.tally));
  facts.add("errors", errors_cell(results.kelp.tally));
  facts.add("paths", {paths_text(results.kelp.tally)});
  facts.add("checksums", {std::to_string(results.kelp.tally.crc_verified) + " of " +
                          std::to_string(results.kelp.tally.latency.count()) +
                          " answers verified by the daemon"});
  if (results.kelp.tally.truncated != 0) {
    facts.add("cut", {std::to_string(results.kelp.tally.truncated) +
                      " answers: the objects are longer than was asked for"});
  }
  if (results.http) {
    facts.add("HTTP bytes", bytes_cell(results, results.http->tally));
    facts.add("HTTP errors", errors_cell(results.http->tally));
  }
  if (results.interrupted) facts.add("note", {"interrupted: results so far", Tone::kWarning});
  return facts.text(colour) + "\n" + figures(results, colour);
}

std::string report_json(const Results& results, const Options& options) {
  Json document;
  document["version"] = kelp_version();
  document["objects"] = results.objects;
  document["verified"] = results.verified;
  document["interrupted"] = results.interrupted;
  document["options"] = options_json(options);
  document["kelp"] = side_json(results.kelp);
  if (results.http) {
    document["http"] = side_json(*results.http);
    document["ratios"] = {{"http_p50_per_kelp_p50", ratio_json(results.ratios.p50)},
                          {"http_p99_per_kelp_p99", ratio_json(results.ratios.p99)},
                          {"kelp_reads_per_s_per_http", ratio_json(results.ratios.reads_per_s)},
                          {"kelp_reads_per_cpu_s_per_http", ratio_json(results.ratios.per_cpu_s)}};
  }
  return document.dump(2) + "\n";
}

}  // namespace kelp::bench
