#include "control/daemon_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string>
#include <tuple>

#include "control/gateway/read_token.h"
#include "control/secret_file.h"

namespace kelp {
namespace {

HugepageUse hugepage_use(HugePages setting) {
  switch (setting) {
    case HugePages::kOff:
      return HugepageUse::kOff;
    case HugePages::kRequire:
      return HugepageUse::kRequire;
    case HugePages::kPrefer:
      break;
  }
  return HugepageUse::kPrefer;
}

tl::unexpected<Error> about(const char* key, const Error& error) {
  return tl::unexpected(Error{error.os_error, std::string(key) + ": " + error.what});
}

}  // namespace

AttachLimits attach_limits(const ClientConfig& config) {
  AttachLimits limits;
  limits.ring_entries = config.ring_entries;
  limits.max_clients = config.max_clients;
  limits.max_channels = config.max_channels;
  limits.max_data_bytes = config.max_data_bytes;
  limits.max_timeout_us = std::uint64_t{config.max_timeout_ms} * 1000;
  limits.hugepages = hugepage_use(config.hugepages);
  limits.admitted = {config.allow_uids, config.allow_gids, true};
  limits.per_uid = {config.max_clients_per_uid, config.max_channels_per_uid,
                    config.max_data_bytes_per_uid};
  return limits;
}

std::uint32_t worker_count(const Config& config) {
  return std::max(static_cast<std::uint32_t>(config.worker.cpus.size()), 1U);
}

WorkerOptions worker_options(const Config& config, std::uint32_t index,
                             const std::vector<std::shared_ptr<ServerPulse>>& pulses) {
  WorkerOptions options;
  options.index = index;
  options.workers = worker_count(config);
  options.cpu = config.worker.cpus.empty() ? -1 : config.worker.cpus[index];
  options.always_poll = config.worker.polling == Polling::kPoll;
  options.spin_us = config.worker.spin_us;
  options.ops = config.worker.ops;
  options.client_requests = config.client.max_requests;
  options.client_bytes = config.client.max_request_bytes;
  options.max_timeout_us = std::uint64_t{config.client.max_timeout_ms} * 1000;
  options.reload_wait_us = std::uint64_t{config.target.reload_wait_ms} * 1000;
  options.inline_inflate_bytes = config.target.inline_inflate_bytes;
  const bool asked = !config.peer.listen.empty();
  options.cache_bytes = asked ? config.target.cache_bytes / options.workers : 0;
  options.hedge_after_us = std::uint64_t{config.peer.hedge_after_ms} * 1000;
  options.trust_local_clients = config.target.trust_local_clients;
  options.remote = !config.gateway.masters.empty();
  options.loader.worker = index;
  options.loader.workers = options.workers;
  for (std::uint32_t server = 0; server < pulses.size(); ++server) {
    const TargetVolumeServer& from = config.target.volume_servers[server];
    for (std::uint32_t rank = 0; rank < from.dirs.size(); ++rank) {
      options.loader.directories.push_back(
          {from.dirs[rank], from.idx_dir, server + 1, rank, pulses[server]});
    }
  }
  for (const TargetDirectory& directory : config.target.directories) {
    options.loader.directories.push_back({directory.path, directory.idx_dir});
  }
  options.loader.rescan = std::chrono::milliseconds(config.target.rescan_ms);
  options.loader.gzip.max_output_bytes = config.target.gzip_max_output_bytes;
  options.loader.gzip.max_ratio = config.target.gzip_max_ratio;
  return options;
}

Result<GatewayOptions> gateway_options(const Config& config) {
  const GatewayConfig& from = config.gateway;
  GatewayOptions options;
  options.lookup.masters = from.masters;
  options.lookup.https = from.https;
  options.lookup.ttl = std::chrono::milliseconds(from.lookup_ttl_ms);
  options.https = from.https;
  options.ca_file = from.ca_file;
  options.data_center = from.data_center;
  options.connect_timeout = std::chrono::milliseconds(from.connect_timeout_ms);
  options.connections_per_server = from.connections_per_server;
  for (const std::string& text : from.masters) {
    const Result<ServerAddress> address = parse_server_address(text);
    if (!address) return about("gateway.masters", address.error());
  }
  for (const std::string& text : from.allow_volume_servers) {
    const Result<ServerAddress> address = parse_server_address(text);
    if (!address) return about("gateway.allow_volume_servers", address.error());
    options.allowed.push_back(*address);
  }
  // Libcurl would say so at each read, and of the certificate.
  if (!from.ca_file.empty() && ::access(from.ca_file.c_str(), R_OK) != 0) {
    return about("gateway.ca_file", system_error("cannot read " + from.ca_file).value());
  }
  for (const TargetVolumeServer& server : config.target.volume_servers) {
    if (const auto address = parse_server_address(server.url)) options.local.push_back(*address);
  }
  if (!from.read_key_file.empty()) {
    auto key = load_read_key(from.read_key_file);
    if (!key) return about("gateway.read_key_file", key.error());
    options.read_key = std::move(*key);
  }
  return options;
}

namespace {

Result<wire::PeerKeys> peer_keys(const PeerConfig& config) {
  if (config.keys_file.empty()) return wire::PeerKeys{};
  auto text =
      read_secret_file(config.keys_file, "cannot read the keys of peers from " + config.keys_file);
  if (!text) return about("peer.keys_file", text.error());
  auto keys = wire::PeerKeys::parse(*text);
  if (!keys) return about("peer.keys_file", keys.error());
  return keys;
}

std::string host_name() {
  std::array<char, 64> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? name.data() : "";
}

}  // namespace

Result<PeerOptions> peer_options(const Config& config) {
  PeerOptions options;
  for (const std::string& text : config.peer.listen) {
    const Result<ServerAddress> address = parse_server_address(text);
    if (!address) return about("peer.listen", address.error());
    options.listen.push_back(*address);
  }
  for (const std::string& text : config.peer.kelpds) {
    const Result<KnownPeer> peer = parse_known_peer(text);
    if (!peer) return about("peer.kelpds", peer.error());
    options.kelpds.push_back(*peer);
  }
  options.discover = config.peer.discover && !config.gateway.masters.empty();
  options.allow_unauthenticated = config.peer.allow_unauthenticated;
  options.node = host_name();
  auto keys = peer_keys(config.peer);
  if (!keys) return tl::unexpected(keys.error());
  options.keys = std::move(*keys);
  if (config.rdma.listen.empty()) return options;
  // Gateways are told of the first one.
  const Result<ServerAddress> first = parse_server_address(config.rdma.listen.front());
  const auto where = first ? numeric_address(*first) : std::nullopt;
  if (!where) return options;  // rdma_options() says what is wrong with it
  options.rdma_port = first->port;
  if (!where->is_any()) options.rdma_address = bytes_of(*where);
  return options;
}

Result<RdmaOptions> rdma_options(const Config& config) {
  const RdmaConfig& from = config.rdma;
  RdmaOptions options;
  for (const std::string& text : from.listen) {
    const Result<ServerAddress> address = parse_server_address(text);
    if (!address) return about("rdma.listen", address.error());
    options.listen.push_back(*address);
  }
  if (!from.source.empty()) {
    options.source = numeric_address({from.source, 0});
    if (!options.source) {
      return about("rdma.source", {0, from.source + " is not an IP address"});
    }
  }
  options.dials = from.use;
  options.arena_bytes = from.arena_bytes;
  options.domain_per_peer = from.pd_per_peer;
  options.mlx5 = from.mlx5 == Mlx5::kAuto;
  options.retries = static_cast<std::uint8_t>(from.retries);
  options.ack_timeout = static_cast<std::uint8_t>(from.ack_timeout);
  options.traffic_class = static_cast<std::uint8_t>(from.traffic_class);
  options.allow_unauthenticated = config.peer.allow_unauthenticated;
  options.node = host_name();
  auto keys = peer_keys(config.peer);
  if (!keys) return tl::unexpected(keys.error());
  options.keys = std::move(*keys);
  return options;
}

}  // namespace kelp
