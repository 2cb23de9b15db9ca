// What the daemon says of its gateway, for people. Pure; a missing or odd field is shown as "-".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "tools/table.h"

namespace kelp {

/// Of /health: a line per master and per volume server that is read from over the network.
void add_gateway_facts(const nlohmann::json& gateway, FactList& facts);

/// Of /volumes: a table with a blank line before it; "" where there are none.
std::string view_remote_volumes(const nlohmann::json& remote, bool colour);

/// Of /stats, in the same way.
std::string view_remote_servers(const nlohmann::json& servers, bool colour);

}  // namespace kelp
