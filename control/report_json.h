// How the reports write JSON: text that is always valid, and times. Pure functions, any thread.
#pragma once

#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

namespace kelp {

using ReportJson = nlohmann::ordered_json;

/// Names of files, servers and clients are bytes; what is not UTF-8 is shown as a replacement
/// character.
inline std::string report_text(const ReportJson& document) {
  return document.dump(2, ' ', false, ReportJson::error_handler_t::replace) + "\n";
}

/// Unix seconds, with milliseconds; null for never.
inline ReportJson time_json(const std::optional<std::chrono::system_clock::time_point>& time) {
  if (!time) return nullptr;
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(time->time_since_epoch());
  return static_cast<double>(ms.count()) / 1e3;
}

}  // namespace kelp
