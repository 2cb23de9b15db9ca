"""A Debian of its own in which systemd runs: a container over a root that is made once, and whose changes are thrown away."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from kelplab import process

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S, PATIENCE_IN_GUEST_S = 120, 300  # an emulated one takes its time
MACHINE = "kelp-packages"
SYSTEM = ("systemd", "systemd-sysv", "dbus", "procps")


class Unavailable(Exception):
    """There can be no such container here."""


def make_root(packages: Sequence[str], say: process.Progress) -> Path:
    """A root with these packages, from build/debian-root where it was made before."""
    wanted = sorted({*SYSTEM, *packages})
    release = debian_release()
    home = ROOT / "build" / "debian-root"
    root = home / f"{release}-{hashlib.sha256(' '.join(wanted).encode()).hexdigest()[:12]}"
    if root.exists():
        return root
    say(f"making a root of Debian {release} with {len(wanted)} packages beyond what it must have")
    home.mkdir(parents=True, exist_ok=True)
    partial = root.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    # What it mounts below there is seen by nobody else, and gone with it.
    argv = ["unshare", "--mount", "mmdebstrap", "--variant=minbase", f"--include={','.join(wanted)}", release, partial]
    try:
        work_off("mmdebstrap", argv, home / f"{root.name}.log")
    except process.LabError as error:
        raise Unavailable(str(error)) from None
    partial.rename(root)  # whole or not at all
    return root


def work_off(name: str, argv: Sequence[str | Path], log: Path) -> None:
    """A program that comes to an end by itself within 20 minutes. One that fails is a LabError."""
    log.unlink(missing_ok=True)
    child = process.Child(name, argv, log)
    try:
        code = child.process.wait(1200)
    except subprocess.TimeoutExpired:
        child.stop()
        raise process.LabError(f"{name} takes more than 20 minutes:\n{child.log_tail()}") from None
    if code != 0:
        raise process.LabError(f"{name} failed (exit code {code}):\n{child.log_tail(40)}")


def debian_release() -> str:
    """That of this host, which the packages are built for."""
    lines = Path("/etc/os-release").read_text().splitlines()
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    if facts.get("ID") != "debian":
        raise Unavailable("this host is not Debian")
    return facts["VERSION_CODENAME"].strip('"')


class Container:
    """A booted one, which sees `stage` as /stage."""

    def __init__(self, child: process.Child, leader: int, patience_s: float) -> None:
        self.child, self.leader, self.patience_s = child, leader, patience_s

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[bytes]:
        """A command as root in it. One that takes longer than the patience is a LabError; with ok, one that fails, too."""
        argv = ["nsenter", f"--target={self.leader}", "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd",
                "--", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive", *words]
        try:
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=self.patience_s, check=False)
        except subprocess.TimeoutExpired:
            raise process.LabError(f"{' '.join(words)} takes longer than {self.patience_s:.0f} s") from None
        if ok and done.returncode != 0:
            raise process.LabError(f"{' '.join(words)}: exit code {done.returncode}\n"
                                   f"{(done.stdout + done.stderr).decode(errors='replace')[-3000:]}")
        return done

    def text(self, *words: str, ok: bool = True) -> str:
        return self.run(*words, ok=ok).stdout.decode().strip()

    def wait(self, what: str, *words: str, answer: str = "", deadline_s: float | None = None) -> None:
        """Until the command succeeds and its answer has these words in it."""
        def probe() -> bool:
            done = self.run(*words, ok=False)
            return done.returncode == 0 and answer in done.stdout.decode()
        process.wait_until(what, probe, [self.child], deadline_s or self.patience_s)


@contextlib.contextmanager
def booted(root: Path, stage: Path, log: Path, *options: str, patience_s: float = PATIENCE_S) -> Iterator[Container]:
    """`options` of systemd-nspawn say what it has of the host's: no network but loopback, or devices."""
    child = process.Child("systemd-nspawn", [
        "systemd-nspawn", "--quiet", f"--directory={root}", "--volatile=overlay", "--register=no", "--keep-unit",
        f"--machine={MACHINE}", "--console=pipe", f"--bind-ro={stage}:/stage", *options, "--boot"], log)
    try:
        leaders: list[int] = []

        def leader() -> bool:
            tasks = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
            leaders[:] = [int(task) for task in tasks if name_of(task) == "systemd"]
            return bool(leaders)

        process.wait_until("the container's systemd", leader, [child], patience_s)
        container = Container(child, leaders[0], patience_s)
        container.wait("the container's units", "sh", "-c", "systemctl is-system-running | grep -E 'running|degraded'")
        yield container
    finally:
        child.stop()
        forget()


def name_of(task: str) -> str:
    """Of a process; empty once it has ended."""
    try:
        return Path(f"/proc/{task}/comm").read_text().strip()
    except OSError:
        return ""


def forget() -> None:
    """What systemd-nspawn leaves behind where no systemd runs on the host: control groups, and a directory for mounts, all empty."""
    with contextlib.suppress(OSError):
        Path("/run/systemd/nspawn/propagate", MACHINE).rmdir()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, ours = line.split(":", 2)
        for mount in {names.removeprefix("name="), "unified", ""}:
            for name in ("payload", "supervisor"):
                top = Path("/sys/fs/cgroup", mount, ours.lstrip("/"), name)
                for folder, _, _ in os.walk(top, topdown=False):
                    with contextlib.suppress(OSError):
                        os.rmdir(folder)


def missing_tools() -> list[str]:
    if os.geteuid() != 0:
        return ["root"]
    tools = ("mmdebstrap", "systemd-nspawn", "nsenter")
    return [tool for tool in tools if not shutil.which(tool)]
