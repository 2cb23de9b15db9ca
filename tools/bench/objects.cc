#include "tools/bench/objects.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "tools/control_client.h"
#include "tools/json_fields.h"

namespace kelp::bench {
namespace {

/// Needles asked for at once: the most the daemon lists in one answer.
constexpr unsigned kPage = 10'000;

/// Nothing if the text is no file id.
std::optional<Object> object_of(const std::string& text) {
  Object object;
  if (kelp_fid_parse(text.c_str(), &object.fid) != KELP_OK) return std::nullopt;
  char canonical[40];
  kelp_fid_format(&object.fid, canonical);
  object.path = std::string("/") + canonical;
  return object;
}

Outcome<std::vector<Object>> load(std::istream& lines, const std::string& name) {
  std::vector<Object> objects;
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty() || line.starts_with('#')) continue;
    std::optional<Object> object = object_of(line);
    if (!object) {
      return fail(ExitCode::kUsage, name + ", line " + std::to_string(number) + ": \"" + line +
                                        "\" is not a file id, like 3,01637037d6");
    }
    objects.push_back(std::move(*object));
  }
  if (lines.bad()) return fail(ExitCode::kOther, "cannot read " + name);
  if (objects.empty()) return fail(ExitCode::kUsage, name + " names no file ids");
  return objects;
}

}  // namespace

Outcome<std::vector<Object>> load_objects(const std::string& path) {
  if (path == "-") return load(std::cin, "stdin");
  std::ifstream file(path);
  if (!file) return fail(ExitCode::kUsage, "cannot open " + path + ": " + std::strerror(errno));
  return load(file, path);
}

Outcome<std::vector<Object>> list_objects(const CommonOptions& common, std::uint32_t volume) {
  const std::string path =
      "/volumes/" + std::to_string(volume) + "/needles?cookies=1&limit=" + std::to_string(kPage);
  std::vector<Object> objects;
  std::string from;
  while (true) {
    const auto answer = control_get(common, path + from);
    if (!answer) return tl::unexpected(answer.error());
    const auto page = nlohmann::json::parse(answer->body, nullptr, false);
    if (answer->status != 200) {
      return fail(ExitCode::kOther, "the daemon does not list volume " + std::to_string(volume) +
                                        ": " + field_text(page, "error"));
    }
    for (const auto& needle : field(page, "needles")) {
      // Without a file id: the record has gone since the daemon looked at the index.
      const auto& fid = field(needle, "fid");
      std::optional<Object> object =
          fid.is_string() ? object_of(fid.get<std::string>()) : std::nullopt;
      if (object) objects.push_back(std::move(*object));
    }
    const auto next = field_count(page, "next");
    if (!next) break;
    from = "&from=" + std::to_string(*next);
  }
  if (!objects.empty()) return objects;
  return fail(ExitCode::kUsage, "volume " + std::to_string(volume) + " holds no needles");
}

bool as_expected(const Object& object, const Extent& extent, std::span<const char> bytes) {
  if (!object.expected || extent.offset > object.expected->size()) return false;
  const std::span<const char> whole(*object.expected);
  const std::size_t count = std::min<std::size_t>(extent.length, whole.size() - extent.offset);
  return std::ranges::equal(bytes, whole.subspan(extent.offset, count));
}

/// Gray et al., "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994.
ZipfTable::ZipfTable(std::size_t count, double theta) {
  for (std::size_t i = 1; i <= count; ++i) zeta += 1 / std::pow(static_cast<double>(i), theta);
  second = 1 + std::pow(0.5, theta);
  alpha = 1 / (1 - theta);
  const double share = 1 - second / zeta;
  eta = share == 0 ? 0 : (1 - std::pow(2 / static_cast<double>(count), 1 - theta)) / share;
}

Order::Order(const OrderPlan& plan, std::size_t count, const ZipfTable* zipf, std::uint32_t turn,
             std::uint32_t turns)
    : kind_(plan.kind),
      count_(count),
      zipf_(zipf),
      at_(count / turns * turn),
      random_(plan.seed * 0x100000001b3 + turn) {}

std::size_t Order::next() noexcept {
  switch (kind_) {
    case OrderKind::kSequential:
      if (at_ >= count_) at_ = 0;
      return at_++;
    case OrderKind::kRandom:
      return random_.below(count_);
    case OrderKind::kZipf:
      break;
  }
  const double share = random_.fraction();
  const double scaled = share * zipf_->zeta;
  if (scaled < 1) return 0;
  if (scaled < zipf_->second) return std::min<std::size_t>(1, count_ - 1);
  const double rank =
      static_cast<double>(count_) * std::pow(zipf_->eta * share - zipf_->eta + 1, zipf_->alpha);
  return std::min(static_cast<std::size_t>(rank), count_ - 1);
}

}  // namespace kelp::bench
