"""What a promise is checked on: a copy of the fixtures, a kelpd of its own, and a place for both."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import daemon, process  # noqa: E402

NOBODY = 65534
# So that a repair is seen, and an answer given up on, sooner: only how long the tests take depends on them.
QUICK = {"target.rescan_ms": 100, "target.reload_wait_ms": 100}


class Broken(Exception):
    """A promise that was not kept; the message says what happened instead."""


class Skipped(Exception):
    """A promise that cannot be checked here; the message says what is missing."""


def expect(kept: object, otherwise: str) -> None:
    if not kept:
        raise Broken(otherwise)


@dataclass(frozen=True)
class Scene:
    """A directory of a promise's own."""

    programs: Path
    fixtures: Path  # the folder with manifest.jsonl
    home: Path
    seed: int
    full: bool = False  # as much as is promised, however long that takes

    def volumes(self, name: str = "vs") -> Path:
        """A fresh copy of the fixtures' volumes, open to everybody."""
        copy = self.home / name
        shutil.copytree(self.fixtures / "vs", copy)
        copy.chmod(0o755)
        return copy

    def config_file(self, settings: dict[str, object]) -> Path:
        """A configuration file with `section.key` settings."""
        lines: dict[str, list[str]] = {}
        for key, value in settings.items():
            section, name = key.split(".")
            lines.setdefault(section, []).append(f'{name} = "{value}"' if isinstance(value, str) else f"{name} = {value}")
        path = self.home / "kelpd.toml"
        path.write_text("".join(f"[{section}]\n" + "\n".join(keys) + "\n" for section, keys in lines.items()))
        return path

    def kelpd(self, volumes: Path, *more_dirs: Path, settings: dict[str, object] | None = None,
              prefix: Sequence[str] = ()) -> daemon.Daemon:
        flags = ["--config", str(self.config_file(QUICK | (settings or {})))]
        for directory in more_dirs:
            flags += ["--volume-dir", str(directory)]
        return daemon.Daemon(self.programs, self.home, volumes, flags=flags, prefix=prefix)

    def start_in_vain(self, *arguments: str | Path, prefix: Sequence[str] = ()) -> tuple[int, str]:
        """Exit code and stderr of a kelpd that is not expected to run."""
        try:
            done = subprocess.run([*prefix, self.programs / "kelpd", *arguments], stdin=subprocess.DEVNULL,
                                  capture_output=True, timeout=20, check=False)
        except subprocess.TimeoutExpired:
            raise Broken(f"kelpd {' '.join(map(str, arguments))} runs, and should have refused to") from None
        return done.returncode, done.stderr.decode(errors="replace")

    def as_nobody(self) -> list[str]:
        """A command prefix that gives up root, where there is one to give up."""
        if os.geteuid() != 0:
            return []
        self.home.chmod(0o755)
        return ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--pdeathsig", "KILL"]

    def for_nobody(self, path: Path) -> Path:
        """Makes `path` belong to whom as_nobody() runs as."""
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        return path

    def programs_for_nobody(self) -> Path:
        """A directory of kelpd and kelpctl where the user of as_nobody() may run them."""
        folder = self.home / "bin"
        folder.mkdir()
        for name in ("kelpd", "kelpctl"):
            shutil.copy(self.programs / name, folder)
        return folder

    def has_address_sanitizer(self) -> bool:
        return b"__asan_init" in (self.programs / "kelpctl").read_bytes()


Promise = Callable[[Scene], None]
PROMISES: dict[str, list[Promise]] = {}


def promise(group: str) -> Callable[[Promise], Promise]:
    """Registers a function under its name, which is the sentence that is printed."""
    def register(function: Promise) -> Promise:
        PROMISES.setdefault(group, []).append(function)
        return function
    return register


def health(kelpd: daemon.Daemon) -> dict[str, Any]:
    done = kelpd.kelpctl("--json", "health")
    expect(done.stdout, f"no /health: {done.stderr.decode()}")
    return json.loads(done.stdout)


def wait_for(what: str, probe: Callable[[], object], kelpd: daemon.Daemon, deadline_s: float = 10) -> None:
    try:
        process.wait_until(what, probe, [kelpd.child], deadline_s)
    except process.LabError as error:
        raise Broken(str(error)) from None


@contextlib.contextmanager
def killed_at_the_end(kelpd: daemon.Daemon) -> Iterator[daemon.Daemon]:
    """A kelpd that gets no chance to tidy up."""
    kelpd.__enter__()
    try:
        yield kelpd
    finally:
        kelpd.child.process.kill()
        kelpd.child.process.wait()


def is_alive(kelpd: daemon.Daemon) -> None:
    expect(kelpd.child.exit_code() is None, f"kelpd ended with {kelpd.child.exit_code()}:\n{kelpd.child.log_tail()}")


# Needles of the fixtures that most promises need no more of than that they are there: volume 1, 40 000 and 4097 bytes.
def plain_row(scene: Scene, volume: int = 1, size: int = 40000) -> dict[str, Any]:
    for line in (scene.fixtures / "manifest.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["set"] == "vs" and row["volume"] == volume and row.get("size") == size and row["status"] == 200:
            return row
    raise Broken(f"the fixtures have no needle of {size} bytes in volume {volume}")


def reads(kelpd: daemon.Daemon, row: dict[str, Any]) -> bool:
    """Whether kelpctl reads the row's bytes; an answer with other bytes is not forgiven."""
    code, body = kelpd.read(row["fid"])
    if code != daemon.OK:
        return False
    expect(hashlib.sha256(body).hexdigest() == row["sha256"], f"{row['fid']} reads as other bytes")
    return True
