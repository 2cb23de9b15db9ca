// What the daemon says of RDMA devices, for people. Pure; a missing or odd field is shown as "-".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kelp {

/// Of /devices: a row per port, and below it the addresses of each.
std::string view_devices(const nlohmann::json& devices, bool colour);

}  // namespace kelp
