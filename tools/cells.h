// Fields of JSON as cells of a table. Pure; a missing or odd field is shown as it is, or as "-".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/table.h"

namespace kelp {

/// "1.5 KiB"
Cell bytes_cell(const nlohmann::json& object, const char* key);

/// A count that should be 0.
Cell fault_cell(const nlohmann::json& object, const char* key);

/// Seconds, whole or not, as "2 d 3 h".
std::string duration_field(const nlohmann::json& object, const char* key);

}  // namespace kelp
