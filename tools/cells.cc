#include "tools/cells.h"

#include <nlohmann/json.hpp>

#include "tools/json_fields.h"
#include "tools/units.h"

namespace kelp {

using nlohmann::json;

Cell bytes_cell(const json& object, const char* key) {
  const auto bytes = field_count(object, key);
  return {bytes ? human_bytes(*bytes) : field_text(object, key)};
}

Cell fault_cell(const json& object, const char* key) {
  const bool some = field_count(object, key).value_or(0) != 0;
  return {field_text(object, key), some ? Tone::kBad : Tone::kPlain};
}

std::string duration_field(const json& object, const char* key) {
  constexpr double kMostSeconds = 1e15;  // beyond, the number fits no integer of ours
  const json& seconds = field(object, key);
  const bool sane =
      seconds.is_number() && seconds.get<double>() >= 0 && seconds.get<double>() < kMostSeconds;
  if (!sane) return field_text(object, key);
  return human_duration(static_cast<std::uint64_t>(seconds.get<double>()));
}

}  // namespace kelp
