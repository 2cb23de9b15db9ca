// Kelpd's configuration as plain structs, one per TOML section, and how it is loaded.
// Of the control thread, at start and again at each reload (config_reload.h).
// Names, ranges and texts of the keys are declared once, in config_keys.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "control/command_line.h"
#include "shm_ring/result.h"
#include "sidecar/options.h"

namespace kelp {

enum class LogLevel : std::uint8_t { kDebug, kInfo, kWarning, kError };

enum class LogFormat : std::uint8_t {
  kText,  ///< time, level, message key=value ...
  kJson,  ///< one object per line, of texts
};

/// How a worker waits for work.
enum class Polling : std::uint8_t {
  kAdaptive,  ///< spins for spin_us, then sleeps until something wakes it
  kPoll,      ///< never sleeps: a whole CPU, for the lowest latency
};

enum class HugePages : std::uint8_t {
  kPrefer,   ///< 4 KiB pages, with one warning, where the pool is empty
  kRequire,  ///< a client that would not get them is refused
  kOff,
};

/// [daemon]
struct DaemonConfig {
  std::string run_dir = "/run/kelp";        ///< sockets and lock file; absolute, at most 94 bytes
  LogLevel log_level = LogLevel::kInfo;     ///< lines below it are not written
  LogFormat log_format = LogFormat::kText;  ///< how they are written
  std::string user;                         ///< started as root it becomes this user; empty: stays
  std::string group;                        ///< and this group; empty: the user's own
  std::uint32_t drain_timeout_ms = 5000;    ///< SIGTERM waits so long for reads; 0..600000
};

/// [worker]
struct WorkerConfig {
  std::vector<int> cpus;                 ///< the CPU of each worker; empty: one, not pinned
  Polling polling = Polling::kAdaptive;  ///< how it waits
  std::uint32_t spin_us = 50;            ///< adaptive: spins so long before it sleeps; 0..100000
  std::uint32_t ops = 4096;              ///< reads in flight per worker; 64..65536
};

/// [client]
struct ClientConfig {
  std::uint32_t ring_entries = 256;             ///< of a submission ring; power of two, 4..65536
  std::uint32_t max_clients = 256;              ///< connected at once; 1..4096
  std::uint32_t max_channels = 64;              ///< per client; 1..64
  std::uint64_t max_data_bytes = 1ull << 30;    ///< data area of one client; 64 KiB..1 TiB
  std::uint32_t max_requests = 1024;            ///< of one client in work at once; 1..65536
  std::uint64_t max_request_bytes = 256 << 20;  ///< and of their buffers; 1 MiB..1 TiB
  std::uint32_t max_clients_per_uid = 0;        ///< 0: no limit of its own; 0..4096
  std::uint32_t max_channels_per_uid = 0;       ///< 0: no limit of its own; 0..262144
  std::uint64_t max_data_bytes_per_uid = 0;     ///< 0: no limit of its own; 0..1 TiB
  std::uint32_t max_timeout_ms = 60000;         ///< a longer timeout is cut to it; 1..3600000
  HugePages hugepages = HugePages::kPrefer;     ///< for the data areas
  std::vector<std::uint32_t> allow_uids;        ///< who may attach; both empty: whoever may
  std::vector<std::uint32_t> allow_gids;        ///< open the socket
  std::uint32_t socket_mode = 0660;             ///< permission bits of attach.sock and control.sock
  std::string socket_group;                     ///< their group; empty: left as it is
};

/// [[target.directory]]: volumes served without a volume server that attests them.
struct TargetDirectory {
  std::string path;     ///< holds the .dat files; absolute
  std::string idx_dir;  ///< holds the .idx files; empty: beside the .dat files
  friend bool operator==(const TargetDirectory&, const TargetDirectory&) = default;
};

/// [[target.volume_server]]: a weed volume on this host, whose volumes are served while it vouches
/// for them.
struct TargetVolumeServer {
  std::string url;                ///< "127.0.0.1:8080", or with "http://" or "https://" before it
  std::vector<std::string> dirs;  ///< hold the .dat files; absolute, in the order of its -dir
  std::string idx_dir;            ///< holds the .idx files (-dir.idx); empty: beside the .dat files
  friend bool operator==(const TargetVolumeServer&, const TargetVolumeServer&) = default;
};

/// [target]
struct TargetConfig {
  std::uint32_t rescan_ms = 2000;  ///< looks for new and vanished volumes; 100..3600000
  std::uint64_t gzip_max_output_bytes = 1ull << 30;  ///< of one needle; 64 KiB..1 TiB
  std::uint32_t gzip_max_ratio = 1100;  ///< inflated to stored; 1..1100, DEFLATE ends at 1032
  std::uint64_t inline_inflate_bytes = 262144;  ///< beyond: on the loader; 0..16 MiB
  std::uint64_t cache_bytes = 64 << 20;  ///< of small needles in memory where others ask; 0..1 TiB
  std::uint32_t reload_wait_ms = 1000;   ///< a read waits so long for a reloading index; 0..60000
  bool trust_local_clients = false;  ///< no token from them, even where the volume server wants one
  std::vector<TargetVolumeServer> volume_servers;
  std::vector<TargetDirectory> directories;  ///< at least one, or a volume server, or a master
};

/// [gateway]: reads what is not read from files of this host, from its volume server over HTTP. On
/// where there is a master.
struct GatewayConfig {
  std::vector<std::string> masters;  ///< "host:port"; asked where a volume is
  bool https = false;                ///< masters and volume servers speak TLS
  std::string ca_file;               ///< trusted CAs in PEM; empty: the system's
  std::string data_center;           ///< its volume servers come first, after those of this host
  /// Volume servers a caller may name though no master lists them for the volume: "host:port".
  std::vector<std::string> allow_volume_servers;
  std::string read_key_file;            ///< holds jwt.signing.read.key; empty: no tokens are made
  std::uint32_t lookup_ttl_ms = 10000;  ///< a master's answer is believed so long; 100..3600000
  std::uint32_t connect_timeout_ms = 1000;    ///< 10..60000
  std::uint32_t connections_per_server = 64;  ///< 1..1024
};

/// [peer]: kelpds of other hosts.
struct PeerConfig {
  std::vector<std::string> listen;  ///< "address:port" where gateways of other hosts connect
  /// "host:port" of those beside volume servers, by their host; "server=host:port" of others
  std::vector<std::string> kelpds;
  bool discover = true;                ///< asks at port 18516 of volume servers' hosts
  std::string keys_file;               ///< holds the keys peers know each other by; empty: none
  bool allow_unauthenticated = false;  ///< peers of other hosts need no key
  std::uint32_t hedge_after_ms = 0;    ///< a second way is tried then; 0: never; 0..60000
};

enum class Mlx5 : std::uint8_t { kAuto, kOff };

struct RdmaConfig {
  bool use = true;                       ///< asks kelpds by RDMA that can be reached so
  std::vector<std::string> listen;       ///< "address:port" where gateways connect by RDMA
  std::string source;                    ///< our address towards those; empty: the route's choice
  std::uint64_t arena_bytes = 64 << 20;  ///< each worker of a target sends from; 1 MiB..16 GiB
  bool pd_per_peer = false;              ///< a target reaches nothing by another one's keys
  Mlx5 mlx5 = Mlx5::kAuto;               ///< the ConnectX's own ways, where there is one
  std::uint32_t retries = 6;             ///< of a packet that is not acknowledged; 0..6
  std::uint32_t ack_timeout = 17;        ///< 4.096 us * 2^this before each; 14..31
  std::uint32_t traffic_class = 0;       ///< of packets; 0..255
};

/// [sidecar]: the HTTP API of the old RDMA sidecar.
struct SidecarConfig {
  std::vector<std::string> listen;  ///< "host:port"
  bool unix_socket = false;         ///< in the run directory, also where `listen` is empty
  sidecar::MountAccepts mount_accepts = sidecar::MountAccepts::kDataplane;
  std::uint32_t max_connections = 16384;     ///< 1..1000000
  std::string temp_dir;                      ///< of files that mounts open themselves; empty: none
  std::uint64_t temp_min_bytes = 128 << 10;  ///< of an answer that is offered as one; 1..1 MiB
  std::uint64_t temp_max_bytes = 256 << 20;  ///< of all together; 1 MiB..1 TiB
};

/// One effective item, for /config: where its value comes from.
struct ConfigOrigin {
  std::string key;     ///< "worker.spin_us", "target.directory[0].path"
  std::string value;   ///< as JSON text: 50, "adaptive", [1]
  std::string origin;  ///< "default", "FILE:LINE" or "--flag"
  bool reloadable = false;
  /// What a reload found for an item that needs a restart, as JSON text; empty: nothing else.
  std::string after_restart = {};
};

struct Config {
  DaemonConfig daemon;
  WorkerConfig worker;
  ClientConfig client;
  TargetConfig target;
  GatewayConfig gateway;
  PeerConfig peer;
  RdmaConfig rdma;
  SidecarConfig sidecar;
  std::string file;                   ///< the file that was read; empty: none
  std::vector<ConfigOrigin> origins;  ///< every key, in the order of the sample file
};

/// Defaults, then the file, then the flags; then what must hold between them, and that the named
/// directories are there. The first thing that does not fit is the error: key, file, line, remedy.
/// Without --config: default_file if it exists, else no file.
Result<Config> load_config(const CommandLine& flags,
                           std::string_view default_file = "/etc/kelp/kelpd.toml");

/// The sidecar is a client like any other: what a limit refused it, it would ask for for ever. The
/// error names both items and where they were set.
Result<void> judge_sidecar_memory(const Config& config);

/// "debug", "info", "warning", "error"
std::string_view log_level_name(LogLevel level) noexcept;
/// "adaptive", "poll"
std::string_view polling_name(Polling polling) noexcept;
/// "prefer", "require", "off"
std::string_view hugepages_name(HugePages hugepages) noexcept;

}  // namespace kelp
