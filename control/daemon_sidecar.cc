// The HTTP read API as part of the daemon: its sockets, its thread, what it is told.
#include <fcntl.h>

#include "control/daemon.h"
#include "control/gateway/server_address.h"
#include "control/log.h"
#include "sidecar/listener.h"
#include "sidecar/sidecar.h"

namespace kelp {
/// Before privileges are dropped: the port may be one for root.
Result<void> Daemon::open_sidecar_ports() {
  for (const std::string& text : config_.sidecar.listen) {
    const auto address = parse_server_address(text);
    if (!address) return tl::unexpected(address.error());
    auto socket = sidecar::listen_tcp(address->host, address->port);
    if (!socket) return tl::unexpected(socket.error());
    sidecar_listeners_.push_back(std::move(*socket));
  }
  return {};
}

Result<void> Daemon::open_sidecar_socket(UnixListenerOptions options) {
  if (sidecar_listeners_.empty() && !config_.sidecar.unix_socket) return {};
  options.backlog = sidecar::kBacklog;
  auto listener = UnixListener::create(run_dir_->http_socket(), options);
  if (!listener) return tl::unexpected(listener.error());
  http_listener_.emplace(std::move(*listener));
  // Of it the sidecar has one of its own; the file is ours to remove.
  UniqueFd socket(::fcntl(http_listener_->fd(), F_DUPFD_CLOEXEC, 0));
  if (!socket) return system_error("no descriptor left for " + run_dir_->http_socket());
  sidecar_listeners_.push_back(std::move(socket));
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
  options.temp_dir = config_.sidecar.temp_dir;
  options.temp_min_bytes = config_.sidecar.temp_min_bytes;
  options.temp_max_bytes = config_.sidecar.temp_max_bytes;
  options.facts = sidecar_facts_;
  options.drained = [this] {
    sidecar_drained_.store(true, std::memory_order_relaxed);  // relaxed: the wake-up orders it
    waker_.notify();
  };
  auto started = sidecar::Sidecar::start(std::move(options));
  if (!started) return tl::unexpected(started.error());
  sidecar_ = std::move(*started);
  for (const std::string& where : config_.sidecar.listen) {
    log_info("the HTTP read API listens", {{"address", where}});
  }
  log_info("the HTTP read API listens", {{"address", run_dir_->http_socket()}});
  return {};
}

}  // namespace kelp
