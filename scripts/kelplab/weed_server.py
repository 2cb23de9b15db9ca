"""One server of a SeaweedFS on loopback: the ports and files it keeps, and a process that may end and come back."""

from __future__ import annotations

import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from .process import Child, LabError, wait_until


def http_call(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None,
              timeout_s: float = 120) -> tuple[int, bytes]:
    """One request, any status; a server that is not there is status 0."""
    status, answer, _ = http_exchange(method, url, body, headers, timeout_s)
    return status, answer


def http_exchange(method: str, url: str, body: bytes | None = None, headers: dict[str, str] | None = None,
                  timeout_s: float = 120) -> tuple[int, bytes, Mapping[str, str]]:
    """The same, with the answer's headers."""
    request = urllib.request.Request("http://" + url, data=body, method=method, headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers
    except (OSError, http.client.HTTPException):
        return 0, b"", {}


def environment(home: Path) -> dict[str, str]:
    """With a home of its own: no security.toml of this machine's user may change what weed does."""
    return {key: value for key, value in os.environ.items() if not key.startswith("WEED_")} | {"HOME": str(home)}


class Server:
    """`weed ROLE` with its arguments, on ports that stay the same. Its log goes on over restarts."""

    def __init__(self, weed: Path, home: Path, name: str, role: str, ports: tuple[int, int], arguments: list[str],
                 directory: Path, *, idx_dir: Path | None = None, env: Mapping[str, str] | None = None,
                 keep: bool = False) -> None:
        self.name = name
        self.home = home
        self.port, self.grpc = ports
        self.url = f"127.0.0.1:{self.port}"
        self.node = f"{self.url}.{self.grpc}"  # as weed shell and other servers name it
        self.directory = directory
        self.idx_dir = idx_dir
        self.env = dict(env or {})
        self.keep = keep
        self.probe = {"master": "/cluster/status", "volume": "/status"}[role]
        self.command = [weed, "-logtostderr=true", role, "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-port={self.port}",
                        f"-port.grpc={self.grpc}", *arguments]
        self.child: Child | None = None

    @property
    def pid(self) -> int:
        if self.child is None:
            raise LabError(f"{self.name} was not started")
        return self.child.pid

    @property
    def running(self) -> bool:
        return self.child is not None and self.child.exit_code() is None

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Does not wait until it answers. `env` is added to its environment this time."""
        for directory in (self.directory, self.idx_dir):
            if directory:
                directory.mkdir(parents=True, exist_ok=True)
        self.child = Child(self.name, self.command, self.home / f"{self.name}.log", cwd=self.home, keep=self.keep,
                           env=environment(self.home) | self.env | dict(env or {}))

    def answers(self) -> bool:
        return http_call("GET", f"{self.url}{self.probe}", timeout_s=5)[0] == 200

    def wait_answer(self) -> None:
        assert self.child
        wait_until(f"{self.name} to answer", self.answers, [self.child])

    def stop(self) -> None:
        """SIGTERM, and waits."""
        if self.child:
            self.child.stop()

    def kill(self) -> None:
        """SIGKILL, and waits."""
        if self.child:
            self.child.process.kill()
            self.child.process.wait()

    def restart(self, env: Mapping[str, str] | None = None) -> None:
        """Stops it if it runs, starts it again and waits until it answers."""
        self.stop()
        self.start(env)
        self.wait_answer()

    def files(self, vid: int) -> list[Path]:
        """A volume server's files of one volume, whatever its collection."""
        return sorted(file for folder in (self.directory, self.idx_dir) if folder
                      for pattern in (f"{vid}.*", f"*_{vid}.*") for file in folder.glob(pattern))
