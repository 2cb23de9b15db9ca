"""kelpd beside a weed, and kelpctl."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .process import Child, LabError, wait_until

# Exit codes of kelpctl.
OK, NOT_FOUND, WRONG_COOKIE, EXPIRED, CORRUPT, USE_HTTP, UNAVAILABLE = 0, 3, 4, 5, 6, 7, 8
BAD_FID, TIMEOUT, BROKEN_GZIP, RANGE, DENIED, NO_DAEMON, CANNOT_WRITE = 2, 9, 10, 11, 12, 13, 14


def peer_flags(config: Path, **items: object) -> list[str]:
    """Flags of a kelpd that has these items of [peer], by way of a file. Lists and numbers stay what they are, all else is text."""
    # A list has a line per entry: kelpd takes only so many dots in one.
    values = {key: json.dumps(value, indent=0) if isinstance(value, list | int) else json.dumps(str(value))
              for key, value in items.items()}
    config.write_text("[peer]\n" + "".join(f"{key} = {value}\n" for key, value in values.items()))
    return ["--config", str(config)]


class Daemon:
    """A kelpd in the foreground; a context manager that stops it and wants exit code 0 from it.

    Serves `volume_dir` unattested, and the directories of `volume_servers` (host:port to directories) while those servers
    vouch for them. `prefix` is a command that runs another one in its place, like prlimit.
    """

    def __init__(self, programs: Path, home: Path, volume_dir: Path | None, *,
                 volume_servers: Mapping[str, Sequence[Path]] | None = None, idx_dir: Path | None = None,
                 flags: Sequence[str] = (), prefix: Sequence[str] = (), keep: bool = False) -> None:
        self.kelpctl_path = programs / "kelpctl"
        self.run_dir = home / "run"
        self.keep = keep
        served: list[str | Path] = ["--volume-dir", volume_dir] if volume_dir else []
        for url, dirs in (volume_servers or {}).items():
            served += ["--volume-server", f"{url}={','.join(map(str, dirs))}"]
        self.arguments = [*prefix, programs / "kelpd", *served, *(["--idx-dir", idx_dir] if idx_dir else []),
                          "--run-dir", self.run_dir, *flags]
        self.log = home / "kelpd.log"
        self.child: Child

    def __enter__(self) -> Daemon:
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.child = Child("kelpd", self.arguments, self.log, keep=self.keep)
        try:
            wait_until("kelpd", lambda: self.kelpctl("health").returncode == 0, [self.child])
        except BaseException:
            self.child.stop()
            raise
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self.keep and kind is None:
            return
        code = self.child.stop()
        if code != 0 and kind is None:
            raise LabError(f"kelpd ended with exit code {code} after SIGTERM, not 0.\n{self.child.log_tail(40)}")

    def kelpctl(self, *words: str, timeout_s: float = 30) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self.kelpctl_path, "--run-dir", self.run_dir, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=timeout_s, check=False)

    def control(self, path: str) -> dict[str, Any]:
        return json.loads(self.control_text(path))

    def control_text(self, path: str) -> str:
        """GET on its control socket: a kelpctl would take a CPU from a worker for longer."""
        connection = http.client.HTTPConnection("kelpd")
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.settimeout(30)
            connection.sock.connect(str(self.run_dir / "control.sock"))
            connection.request("GET", path)
            return connection.getresponse().read().decode()

    def read(self, fid: str, *options: str) -> tuple[int, bytes]:
        """Exit code and bytes of `kelpctl read`."""
        done = self.kelpctl("read", *options, "--", fid)
        return done.returncode, done.stdout

    def volumes(self) -> list[dict[str, Any]]:
        done = self.kelpctl("--json", "volumes")
        if done.returncode != 0:
            return []
        return json.loads(done.stdout)["volumes"]

    def stats(self) -> dict[str, Any]:
        done = self.kelpctl("--json", "stats")
        if done.returncode != 0:
            raise LabError(f"kelpctl stats ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return json.loads(done.stdout)

    def wait_serving(self, vids: Iterable[int], deadline_s: float = 30) -> None:
        """Until kelpd serves at least these volumes."""
        wanted = set(vids)
        wait_until(f"kelpd to serve volumes {sorted(wanted)}",
                   lambda: wanted <= {volume["id"] for volume in self.volumes() if volume["state"] == "serving"},
                   [self.child], deadline_s)
