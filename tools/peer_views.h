// What the daemon says of kelpds of other hosts, for people. Pure; a missing or odd field is shown
// as "-".
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace kelp {

/// Of /peers: a row per connection, how many there were since the daemon's start, and with RDMA
/// what the ports count of packets that were sent again.
std::string view_peers(const nlohmann::json& peers, bool colour);

}  // namespace kelp
