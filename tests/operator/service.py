"""kelpd under systemd: what it says to it, the units, and their configurations."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from control_socket import ask
from scene import Broken, Scene, Skipped, daemon, expect, killed_at_the_end, plain_row, promise, reads, wait_for

ROOT = Path(__file__).resolve().parents[2]
ROLES = ("gateway", "target")
MOST_EXPOSURE = 20  # tenths, as systemd-analyze security --threshold takes them
WATCHDOG_US = 10_000_000


class Manager:
    """What listens on $NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.said: list[str] = []

    def wait_for(self, line: str, deadline_s: float = 10, since: int = 0) -> None:
        give_up = time.monotonic() + deadline_s
        while not any(line in one.splitlines() for one in self.said[since:]):
            left = give_up - time.monotonic()
            if left <= 0:
                raise Broken(f"no {line} in {self.said[since:]}")
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                self.said.append(self.socket.recv(4096).decode())


@contextlib.contextmanager
def managed(scene: Scene) -> Iterator[tuple[daemon.Daemon, Manager]]:
    manager = Manager(scene.home / "notify")
    environment = {"NOTIFY_SOCKET": str(scene.home / "notify"), "WATCHDOG_USEC": str(WATCHDOG_US)}
    os.environ.update(environment)
    try:
        with killed_at_the_end(scene.kelpd(scene.volumes())) as kelpd:
            if b"sd_notify" not in Path(scene.programs / "kelpd").read_bytes():
                raise Skipped("kelpd was built without libsystemd")
            yield kelpd, manager
    finally:
        for name in environment:
            del os.environ[name]
        manager.socket.close()


@promise("service")
def systemd_is_told_of_start_reload_clients_and_end(scene: Scene) -> None:
    with managed(scene) as (kelpd, manager):
        manager.wait_for("READY=1")
        manager.wait_for("STATUS=0 clients attached")
        before = len(manager.said)
        os.kill(kelpd.child.pid, signal.SIGHUP)
        manager.wait_for("RELOADING=1", since=before)
        manager.wait_for("READY=1", since=before)
        ask(kelpd, "POST", "/disable")
        manager.wait_for("STATUS=disabled, 0 clients attached")
        os.kill(kelpd.child.pid, signal.SIGTERM)
        manager.wait_for("STOPPING=1")


@promise("service")
def the_watchdog_hears_of_a_worker_that_sleeps_and_of_none_that_stands_still(scene: Scene) -> None:
    with managed(scene) as (kelpd, manager):
        for _ in range(3):
            manager.wait_for("WATCHDOG=1", since=len(manager.said), deadline_s=WATCHDOG_US / 1e6)
        os.kill(kelpd.child.pid, signal.SIGSTOP)
        manager.socket.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                manager.said.append(manager.socket.recv(4096).decode())
        os.kill(kelpd.child.pid, signal.SIGCONT)
        manager.wait_for("WATCHDOG=1", since=len(manager.said), deadline_s=WATCHDOG_US / 1e6)


def units(scene: Scene) -> list[Path]:
    """The units of this build, with the daemon of this build."""
    if not shutil.which("systemd-analyze"):
        raise Skipped("systemd-analyze is not installed")
    made = []
    for role in ROLES:
        text = (scene.programs.parent / "units" / f"kelp-{role}.service").read_text()
        path = scene.home / f"kelp-{role}.service"
        path.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={scene.programs / 'kelpd'}", text, flags=re.MULTILINE))
        made.append(path)
    return made


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, timeout=60, check=False)


@promise("service")
def systemd_finds_no_fault_with_the_units(scene: Scene) -> None:
    for unit_file in units(scene):
        done = analyze("verify", "--man=no", unit_file)
        expect(done.returncode == 0 and unit_file.name not in done.stderr, done.stderr)


@promise("service")
def the_units_leave_little_exposed(scene: Scene) -> None:
    for unit_file in units(scene):
        done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", unit_file)
        expect(done.returncode == 0, done.stdout[-200:])


@promise("service")
def the_sample_of_each_unit_is_right_once_its_paths_are_there(scene: Scene) -> None:
    keys = scene.home / "peers.keys"
    keys.write_text(f"1 {'ab' * 32}\n")
    keys.chmod(0o600)
    here = {"/data/seaweedfs": scene.volumes(), "/etc/kelp/peers.keys": keys}
    for role in ROLES:
        text = (ROOT / "config" / f"{role}.toml").read_text()
        commented = re.sub(r"^# (?=\[|\w+ = )", "", text, flags=re.MULTILINE)  # and what it offers
        expect(commented != text, f"{role}.toml offers nothing")
        for sample in (text, commented):
            for path, own in here.items():
                sample = sample.replace(path, str(own))
            path = scene.home / f"{role}.toml"
            path.write_text(sample.replace("/etc/kelp/read.key", str(keys)))
            code, words = scene.start_in_vain("--check", "--config", path, "--run-dir", scene.home / "run")
            expect(code == 0, f"{role}.toml: {words}")
    keys.write_text("first 00\n")
    code, words = scene.start_in_vain("--check", "--config", scene.home / "target.toml", "--run-dir", scene.home / "run")
    expect(code != 0 and "line 1 of the peers' keys" in words, f"keys that are none pass --check: {code}, {words}")


def allowed_calls(unit_file: Path) -> set[str]:
    """What the unit's SystemCallFilter lines come to."""
    lines = analyze("syscall-filter").stdout.splitlines()
    groups: dict[str, set[str]] = {}
    for line in lines:
        word = line.split("#")[0].strip()
        if line.startswith("@"):
            members = groups.setdefault(word, set())
        elif word:
            members.add(word)

    def calls(name: str) -> set[str]:
        if not name.startswith("@"):
            return {name}
        return set().union(*(calls(member) for member in groups[name]))

    allowed: set[str] = set()
    for words in re.findall(r"^SystemCallFilter=(.*)$", unit_file.read_text(), flags=re.MULTILINE):
        named = set().union(*(calls(word) for word in words.lstrip("~").split()))
        allowed = allowed - named if words.startswith("~") else allowed | named
    return allowed | calls("@default")


@promise("service")
def the_units_allow_every_system_call_kelpd_makes(scene: Scene) -> None:
    if not shutil.which("strace"):
        raise Skipped("strace is not installed")
    if scene.has_address_sanitizer():
        raise Skipped("not with the calls of a sanitizer")
    trace, row = scene.home / "trace", plain_row(scene)
    prefix = ["strace", "--follow-forks", "--quiet=all", "--output", str(trace), "--"]
    with scene.kelpd(scene.volumes(), prefix=prefix, settings={"client.hugepages": "prefer"}) as kelpd:
        wait_for("a needle to read", lambda: reads(kelpd, row), kelpd)
        for method, path in (("POST", "/reload"), ("GET", "/volumes"), ("GET", "/volumes/1/needles?cookies=1"), ("GET", "/metrics"),
                             ("POST", "/disable"), ("POST", "/enable")):
            expect(ask(kelpd, method, path)[0] == 200, f"{path} is not answered")
        ask(kelpd, "POST", "/drain")  # strace keeps a SIGTERM to itself
        kelpd.child.process.wait(15)
    made = set(re.findall(r"^\d+ +([a-z0-9_]+)\(", trace.read_text(), flags=re.MULTILINE))
    expect({"memfd_create", "inotify_add_watch", "preadv2", "bind"} <= made, f"the trace has only {made}")
    for unit_file in units(scene):
        expect(not made - allowed_calls(unit_file), f"not allowed: {made - allowed_calls(unit_file)}")
