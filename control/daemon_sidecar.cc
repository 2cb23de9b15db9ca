// The HTTP read API as part of the daemon: its sockets, its thread, what it is told.
#include "control/daemon.h"
#include "control/gateway/server_address.h"
#include "control/log.h"
#include "sidecar/listener.h"
#include "sidecar/sidecar.h"

namespace kelp {
/// Before privileges are dropped: the port may be one for root.
Result<void> Daemon::open_sidecar() {
  for (const std::string& text : config_.sidecar.listen) {
    const auto address = parse_server_address(text);
    if (!address) return tl::unexpected(address.error());
    auto socket = sidecar::listen_tcp(address->host, address->port);
    if (!socket) return tl::unexpected(socket.error());
    sidecar_listeners_.push_back(std::move(*socket));
  }
  return {};
}

/// Its thread attaches as soon as run() lets it.
Result<void> Daemon::start_sidecar() {
  if (sidecar_listeners_.empty()) return {};
  sidecar::Options options;
  options.listeners = std::move(sidecar_listeners_);
  options.run_dir = config_.daemon.run_dir;
  options.mount_accepts = config_.sidecar.mount_accepts;
  options.max_connections = config_.sidecar.max_connections;
  options.facts = sidecar_facts_;
  auto started = sidecar::Sidecar::start(std::move(options));
  if (!started) return tl::unexpected(started.error());
  sidecar_ = std::move(*started);
  for (const std::string& where : config_.sidecar.listen) {
    log_info("the HTTP read API listens", {{"address", where}});
  }
  return {};
}

}  // namespace kelp
