// What the control socket answers, as tables. Pure; a missing or odd field is shown as "-".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kelp {

std::string view_health(const nlohmann::json& health, bool colour);
std::string view_volumes(const nlohmann::json& volumes, bool colour);
std::string view_stats(const nlohmann::json& stats, bool colour);
std::string view_clients(const nlohmann::json& clients, bool colour);
std::string view_reload(const nlohmann::json& reload, bool colour);
/// Of /drain, /disable and /enable: the one word they answer.
std::string view_status(const nlohmann::json& answer, bool colour);
std::string view_config(const nlohmann::json& config, bool colour);

}  // namespace kelp
