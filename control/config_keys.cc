#include "control/config_keys.h"

#include <algorithm>
#include <array>

#include "control/config_key_kinds.h"

namespace kelp {
namespace {

constexpr std::array<Choice<LogLevel>, 4> kLogLevels = {{{LogLevel::kDebug, "debug"},
                                                         {LogLevel::kInfo, "info"},
                                                         {LogLevel::kWarning, "warning"},
                                                         {LogLevel::kError, "error"}}};
constexpr std::array<Choice<LogFormat>, 2> kLogFormats = {
    {{LogFormat::kText, "text"}, {LogFormat::kJson, "json"}}};
constexpr std::array<Choice<Polling>, 2> kPollings = {
    {{Polling::kAdaptive, "adaptive"}, {Polling::kPoll, "poll"}}};
constexpr std::array<Choice<Mlx5>, 2> kMlx5s = {{{Mlx5::kAuto, "auto"}, {Mlx5::kOff, "off"}}};
constexpr std::array<Choice<HugePages>, 3> kHugePages = {
    {{HugePages::kPrefer, "prefer"}, {HugePages::kRequire, "require"}, {HugePages::kOff, "off"}}};

constexpr std::array<Choice<sidecar::MountAccepts>, 3> kMountMarks = {
    {{sidecar::MountAccepts::kDataplane, "dataplane"},
     {sidecar::MountAccepts::kRdma, "rdma"},
     {sidecar::MountAccepts::kAny, "any"}}};

// sun_path holds 107 bytes, and "/control.sock" is 13 of them.
constexpr std::size_t kMaxRunDirBytes = 94;
constexpr std::size_t kMaxPathBytes = 3072;    // room below PATH_MAX for the file's own name
constexpr std::size_t kMaxTempDirBytes = 256;  // it goes into the head of an answer
constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kTiB = kMiB * kMiB;

// What a reload applies to a running daemon: each is a number or word by itself, and whoever uses
// it looks anew each time. No key of [[target.directory]] can be one of these.
constexpr std::string_view kReloadable[] = {"daemon.log_level",
                                            "daemon.log_format",
                                            "daemon.drain_timeout_ms",
                                            "worker.spin_us",
                                            "client.ring_entries",
                                            "client.max_clients",
                                            "client.max_channels",
                                            "client.max_data_bytes",
                                            "client.hugepages",
                                            "client.max_clients_per_uid",
                                            "client.max_channels_per_uid",
                                            "client.max_data_bytes_per_uid",
                                            "client.allow_uids",
                                            "client.allow_gids",
                                            "target.inline_inflate_bytes",
                                            "target.reload_wait_ms"};

constexpr std::array<std::string_view, 8> kSections = {"daemon",  "worker", "client", "target",
                                                       "gateway", "peer",   "rdma",   "sidecar"};

/// A field of a section: `section` and `member` point at it.
template <class Section, class T>
ConfigField<T> at(Section Config::*section, T Section::*member) {
  return [=](Config& config, std::size_t) -> T& { return config.*section.*member; };
}

/// A field of one [[target.volume_server]].
template <class T>
ConfigField<T> in_server(T TargetVolumeServer::*member) {
  return [=](Config& config, std::size_t entry) -> T& {
    return config.target.volume_servers[entry].*member;
  };
}

ConfigField<std::string> in_directory(std::string TargetDirectory::*member) {
  return [=](Config& config, std::size_t entry) -> std::string& {
    return config.target.directories[entry].*member;
  };
}

void add_daemon_and_worker(std::vector<ConfigKey>& keys) {
  const auto daemon = [](auto member) { return at(&Config::daemon, member); };
  keys.push_back(path_key("daemon.run_dir", daemon(&DaemonConfig::run_dir), kMaxRunDirBytes,
                          "Directory of the sockets and the lock file."));
  keys.push_back(choice_key<LogLevel>("daemon.log_level", daemon(&DaemonConfig::log_level),
                                      kLogLevels, "Log lines below this level are not written."));
  keys.push_back(choice_key<LogFormat>(
      "daemon.log_format", daemon(&DaemonConfig::log_format), kLogFormats,
      "text is time, level, message and key=value; json is one object per line."));
  keys.push_back(text_key("daemon.user", daemon(&DaemonConfig::user), "user name, or empty",
                          "Started as root, the daemon becomes this user; empty: it stays root."));
  keys.push_back(text_key("daemon.group", daemon(&DaemonConfig::group), "group name, or empty",
                          "And takes this group in place of the user's own."));
  keys.push_back(number_key("daemon.drain_timeout_ms", daemon(&DaemonConfig::drain_timeout_ms),
                            {0, 600000, "milliseconds"},
                            "How long a drain waits for the reads in flight."));

  const auto worker = [](auto member) { return at(&Config::worker, member); };
  keys.push_back(cpus_key("worker.cpus", worker(&WorkerConfig::cpus),
                          "A worker pinned to each of these CPUs; empty: one, not pinned."));
  keys.push_back(choice_key<Polling>(
      "worker.polling", worker(&WorkerConfig::polling), kPollings,
      "adaptive sleeps when there is nothing to do; poll takes a whole CPU, always."));
  keys.push_back(number_key("worker.spin_us", worker(&WorkerConfig::spin_us),
                            {0, 100000, "microseconds"},
                            "How long an adaptive worker spins before it sleeps."));
  keys.push_back(number_key("worker.ops", worker(&WorkerConfig::ops), {64, 65536, "reads"},
                            "Reads in flight per worker; more wait in their rings."));
}

void add_client(std::vector<ConfigKey>& keys) {
  const auto client = [](auto member) { return at(&Config::client, member); };
  keys.push_back(power_of_two_key("client.ring_entries", client(&ClientConfig::ring_entries),
                                  {4, 65536, "entries"},
                                  "Submission ring of a client that asks for no size."));
  keys.push_back(number_key("client.max_clients", client(&ClientConfig::max_clients),
                            {1, 4096, "clients"}, "Clients connected at once."));
  keys.push_back(number_key("client.max_channels", client(&ClientConfig::max_channels),
                            {1, 64, "channels"},
                            "Channels of one client: threads that read at once."));
  keys.push_back(bytes_key("client.max_data_bytes", client(&ClientConfig::max_data_bytes),
                           {64 * kKiB, kTiB, ""}, "Largest data area of one client."));
  keys.push_back(number_key("client.max_requests", client(&ClientConfig::max_requests),
                            {1, 65536, "requests"},
                            "Requests of one client in work; more wait in its rings."));
  keys.push_back(bytes_key(
      "client.max_request_bytes", client(&ClientConfig::max_request_bytes), {kMiB, kTiB, ""},
      "No request of a client is taken while those in work have buffers of so many bytes."));
  keys.push_back(number_key("client.max_clients_per_uid",
                            client(&ClientConfig::max_clients_per_uid), {0, 4096, "clients"},
                            "Clients of one user; 0: no limit but max_clients."));
  keys.push_back(number_key("client.max_channels_per_uid",
                            client(&ClientConfig::max_channels_per_uid), {0, 262144, "channels"},
                            "Channels of all clients of one user; 0: no limit."));
  keys.push_back(bytes_key("client.max_data_bytes_per_uid",
                           client(&ClientConfig::max_data_bytes_per_uid), {0, kTiB, ""},
                           "Data areas of all clients of one user; 0: no limit."));
  keys.push_back(number_key("client.max_timeout_ms", client(&ClientConfig::max_timeout_ms),
                            {1, 3600000, "milliseconds"},
                            "A read that asks for a longer timeout gets this one."));
  keys.push_back(choice_key<HugePages>(
      "client.hugepages", client(&ClientConfig::hugepages), kHugePages,
      "Hugepages for data areas: where there are any, or nothing else, or never."));
  keys.push_back(ids_key("client.allow_uids", client(&ClientConfig::allow_uids),
                         "Users who may attach; with allow_gids empty, too: whoever may open the "
                         "socket."));
  keys.push_back(ids_key("client.allow_gids", client(&ClientConfig::allow_gids),
                         "Groups, also supplementary ones, whose members may attach."));
  keys.push_back(mode_key("client.socket_mode", client(&ClientConfig::socket_mode),
                          "Permission bits of the sockets in the run directory."));
  keys.push_back(text_key("client.socket_group", client(&ClientConfig::socket_group),
                          "group name, or empty",
                          "Group of both sockets; empty leaves it as it is."));
}

void add_target(std::vector<ConfigKey>& keys) {
  const auto target = [](auto member) { return at(&Config::target, member); };
  keys.push_back(number_key("target.rescan_ms", target(&TargetConfig::rescan_ms),
                            {100, 3600000, "milliseconds"},
                            "How often the directories are searched for new volumes."));
  keys.push_back(bytes_key("target.gzip_max_output_bytes",
                           target(&TargetConfig::gzip_max_output_bytes), {64 * kKiB, kTiB, ""},
                           "A compressed needle that inflates to more is refused."));
  keys.push_back(number_key(
      "target.gzip_max_ratio", target(&TargetConfig::gzip_max_ratio), {1, 1100, "to 1"},
      "One that inflates to more than so many times its size is refused; DEFLATE ends at 1032."));
  keys.push_back(bytes_key(
      "target.inline_inflate_bytes", target(&TargetConfig::inline_inflate_bytes),
      {0, 16 * kMiB, ""}, "A compressed needle that inflates to more is inflated off the worker."));
  keys.push_back(
      bytes_key("target.cache_bytes", target(&TargetConfig::cache_bytes), {0, kTiB, ""},
                "Memory for small needles that kelpds of other hosts read again and again, where "
                "peer.listen is set; 0: none is kept."));
  keys.push_back(number_key(
      "target.reload_wait_ms", target(&TargetConfig::reload_wait_ms), {0, 60000, "milliseconds"},
      "How long a read waits for an index that is being reloaded, before the next path."));
  keys.push_back(bool_key("target.trust_local_clients", target(&TargetConfig::trust_local_clients),
                          "Local programs read without a token, even where the volume server wants "
                          "one."));
  keys.push_back(url_key("target.volume_server.url", in_server(&TargetVolumeServer::url),
                         "A weed volume on this host, which attests the volumes it has."));
  keys.push_back(paths_key("target.volume_server.dirs", in_server(&TargetVolumeServer::dirs),
                           kMaxPathBytes,
                           "Its directories of .dat files, in the order of its -dir."));
  keys.push_back(path_key("target.volume_server.idx_dir", in_server(&TargetVolumeServer::idx_dir),
                          kMaxPathBytes, "Its .idx files, where they lie elsewhere (-dir.idx)."));
  keys.push_back(path_key("target.directory.path", in_directory(&TargetDirectory::path),
                          kMaxPathBytes, "A directory of .dat files to serve."));
  keys.push_back(path_key("target.directory.idx_dir", in_directory(&TargetDirectory::idx_dir),
                          kMaxPathBytes, "Its .idx files, where they lie elsewhere."));
}

void add_gateway(std::vector<ConfigKey>& keys) {
  const auto gateway = [](auto member) { return at(&Config::gateway, member); };
  keys.push_back(urls_key("gateway.masters", gateway(&GatewayConfig::masters),
                          "Masters, asked in turn where a volume is; empty: no gateway."));
  keys.push_back(bool_key("gateway.https", gateway(&GatewayConfig::https),
                          "Masters and volume servers speak TLS, where no scheme says otherwise."));
  keys.push_back(optional_path_key("gateway.ca_file", gateway(&GatewayConfig::ca_file),
                                   kMaxPathBytes,
                                   "Authorities to trust, in PEM; empty: those of the system."));
  keys.push_back(text_key("gateway.data_center", gateway(&GatewayConfig::data_center),
                          "name, or empty",
                          "Its volume servers are read from first, after those of this host."));
  keys.push_back(urls_key("gateway.allow_volume_servers",
                          gateway(&GatewayConfig::allow_volume_servers),
                          "Volume servers a caller may name though no master lists them."));
  keys.push_back(optional_path_key(
      "gateway.read_key_file", gateway(&GatewayConfig::read_key_file), kMaxPathBytes,
      "File that holds the volume servers' jwt.signing.read.key; empty: no tokens."));
  keys.push_back(number_key("gateway.lookup_ttl_ms", gateway(&GatewayConfig::lookup_ttl_ms),
                            {100, 3600000, "milliseconds"},
                            "How long a master's answer is believed."));
  keys.push_back(
      number_key("gateway.connect_timeout_ms", gateway(&GatewayConfig::connect_timeout_ms),
                 {10, 60000, "milliseconds"}, "How long a connection may take to come about."));
  keys.push_back(
      number_key("gateway.connections_per_server", gateway(&GatewayConfig::connections_per_server),
                 {1, 1024, "connections"}, "Connections to one volume server; more reads wait."));
}

void add_peer(std::vector<ConfigKey>& keys) {
  const auto peer = [](auto member) { return at(&Config::peer, member); };
  keys.push_back(urls_key("peer.listen", peer(&PeerConfig::listen),
                          "Where gateways of other hosts connect; empty: nowhere."));
  keys.push_back(
      known_peers_key("peer.kelpds", peer(&PeerConfig::kelpds),
                      "Kelpds of storage hosts: asked for volumes of volume servers of theirs."));
  keys.push_back(bool_key("peer.discover", peer(&PeerConfig::discover),
                          "Also asks kelpds at port 18516 of volume servers' hosts, if there are "
                          "any and the keys allow it."));
  keys.push_back(
      optional_path_key("peer.keys_file", peer(&PeerConfig::keys_file), kMaxPathBytes,
                        "File of the keys by which kelpds know each other; empty: none."));
  keys.push_back(bool_key("peer.allow_unauthenticated", peer(&PeerConfig::allow_unauthenticated),
                          "Kelpds of other hosts need no key."));
  keys.push_back(number_key("peer.hedge_after_ms", peer(&PeerConfig::hedge_after_ms),
                            {0, 60000, "milliseconds"},
                            "A kelpd that has not answered by then: the volume server is asked, "
                            "too; 0: never."));
}

void add_rdma(std::vector<ConfigKey>& keys) {
  const auto rdma = [](auto member) { return at(&Config::rdma, member); };
  keys.push_back(bool_key("rdma.use", rdma(&RdmaConfig::use),
                          "Asks kelpds by RDMA that can be reached so, where there is a device."));
  keys.push_back(urls_key("rdma.listen", rdma(&RdmaConfig::listen),
                          "Where gateways of other hosts connect by RDMA; empty: nowhere."));
  keys.push_back(text_key("rdma.source", rdma(&RdmaConfig::source), "IP address, or empty",
                          "Our address towards targets, and so the device; empty: by the route."));
  keys.push_back(bytes_key("rdma.arena_bytes", rdma(&RdmaConfig::arena_bytes),
                           {1 << 20, std::uint64_t{16} << 30, ""},
                           "Pinned memory that each worker of a target reads into."));
  keys.push_back(bool_key("rdma.pd_per_peer", rdma(&RdmaConfig::pd_per_peer),
                          "A target reaches no memory by keys that another one was given."));
  keys.push_back(choice_key<Mlx5>("rdma.mlx5", rdma(&RdmaConfig::mlx5), kMlx5s,
                                  "auto uses what a ConnectX can do beyond plain verbs."));
  keys.push_back(number_key("rdma.retries", rdma(&RdmaConfig::retries), {0, 6, "times"},
                            "A packet that is not acknowledged is sent again."));
  keys.push_back(number_key("rdma.ack_timeout", rdma(&RdmaConfig::ack_timeout),
                            {14, 31, "exponent"},
                            "After 4.096 microseconds times 2 to this power."));
  keys.push_back(number_key("rdma.traffic_class", rdma(&RdmaConfig::traffic_class),
                            {0, 255, "class"},
                            "Of RDMA packets: DSCP and ECN, for switches that tell them apart."));
}

void add_sidecar(std::vector<ConfigKey>& keys) {
  const auto field = [](auto member) { return at(&Config::sidecar, member); };
  keys.push_back(urls_key("sidecar.listen", field(&SidecarConfig::listen),
                          "Where the HTTP read API listens; empty: at no port."));
  keys.push_back(bool_key("sidecar.unix_socket", field(&SidecarConfig::unix_socket),
                          "It is also at http.sock in the run directory; true: even there alone."));
  keys.push_back(choice_key<sidecar::MountAccepts>(
      "sidecar.mount_accepts", field(&SidecarConfig::mount_accepts), kMountMarks,
      "Answers that a weed mount uses: not those over HTTP, only those over RDMA, or all."));
  keys.push_back(number_key("sidecar.max_connections", field(&SidecarConfig::max_connections),
                            {1, 1000000, "connections"},
                            "Connections of clients at once; beyond, idle ones are closed."));
  keys.push_back(
      optional_path_key("sidecar.temp_dir", field(&SidecarConfig::temp_dir), kMaxTempDirBytes,
                        "Directory of files by which large answers are offered to mounts of this "
                        "host, too; empty: none are."));
  keys.push_back(bytes_key("sidecar.temp_min_bytes", field(&SidecarConfig::temp_min_bytes),
                           {1, kMiB, ""}, "Smaller answers are not offered so."));
  keys.push_back(bytes_key("sidecar.temp_max_bytes", field(&SidecarConfig::temp_max_bytes),
                           {kMiB, kTiB, ""}, "Of all such files together."));
}

std::vector<ConfigKey> build_keys() {
  std::vector<ConfigKey> keys;
  add_daemon_and_worker(keys);
  add_client(keys);
  add_target(keys);
  add_gateway(keys);
  add_peer(keys);
  add_rdma(keys);
  add_sidecar(keys);
  for (ConfigKey& key : keys) {
    key.reloadable = std::find(std::begin(kReloadable), std::end(kReloadable), key.name) !=
                     std::end(kReloadable);
  }
  return keys;
}

/// Levenshtein's distance, in one row.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

std::string_view last_part(std::string_view name) {
  const std::size_t dot = name.rfind('.');
  return dot == std::string_view::npos ? name : name.substr(dot + 1);
}

template <class E, std::size_t N>
std::string_view choice_name(const std::array<Choice<E>, N>& choices, E value) noexcept {
  for (const Choice<E>& choice : choices) {
    if (choice.value == value) return choice.name;
  }
  return "?";
}

}  // namespace

std::span<const ConfigKey> config_keys() {
  static const std::vector<ConfigKey> keys = build_keys();
  return keys;
}

const ConfigKey* find_config_key(std::string_view name) {
  for (const ConfigKey& key : config_keys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::string_view repeated_table_of(std::string_view name) {
  for (const std::string_view table : {kDirectoryTable, kServerTable}) {
    if (!name.starts_with(table)) continue;
    if (name.size() == table.size() || name[table.size()] == '.') return table;
  }
  return {};
}

bool is_config_section(std::string_view name) {
  return std::find(kSections.begin(), kSections.end(), name) != kSections.end();
}

std::string_view nearest_config_key(std::string_view name) {
  constexpr std::size_t kLongestName = 64;  // longer ones are not worth the quadratic comparison
  if (name.size() > kLongestName) return {};
  std::string_view nearest;
  std::size_t least = std::max<std::size_t>(2, name.size() / 4) + 1;
  const auto consider = [&](std::string_view candidate, std::size_t distance) {
    if (distance < least) nearest = candidate, least = distance;
  };
  for (const ConfigKey& key : config_keys()) {
    consider(key.name, edit_distance(name, key.name));
    // The right key in the wrong section, or in none.
    if (last_part(key.name) == last_part(name)) consider(key.name, 1);
  }
  for (const std::string_view section : kSections) consider(section, edit_distance(name, section));
  return nearest;
}

std::string_view log_level_name(LogLevel level) noexcept {
  return choice_name(kLogLevels, level);
}
std::string_view polling_name(Polling polling) noexcept {
  return choice_name(kPollings, polling);
}
std::string_view hugepages_name(HugePages hugepages) noexcept {
  return choice_name(kHugePages, hugepages);
}

}  // namespace kelp
