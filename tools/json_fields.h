// Fields of JSON we did not write: any of them may be missing, or of another type. Never throws.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace kelp {

/// The member `key`, or a null where there is none.
const nlohmann::json& field(const nlohmann::json& object, const char* key);

/// As text for a cell: texts as they are, "yes" and "no", numbers; "-" for null; else JSON.
std::string cell_text(const nlohmann::json& value);
std::string field_text(const nlohmann::json& object, const char* key);

/// Nothing unless it is a whole number from 0 on.
std::optional<std::uint64_t> field_count(const nlohmann::json& object, const char* key);

}  // namespace kelp
