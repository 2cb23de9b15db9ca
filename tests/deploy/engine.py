"""A Docker engine of our own: programs unpacked from Debian's packages, or those that are installed, and a dockerd in a PID and
mount namespace of its own, so that no container and no mount of it can outlive it.

Images stay from run to run in build/deploy/docker, beside the base system they are made from. Containers have the network of the
host, as there is no bridge: nothing of this machine's network is changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
from kelplab import process  # noqa: E402
from kelplab.weed import REPOSITORY  # noqa: E402

CACHE = REPOSITORY / "build" / "deploy"
PACKAGES = ("docker.io", "docker-compose", "mmdebstrap")
BASE = "debian:12-slim"  # what the Dockerfile begins with; made here, as no registry is asked


class Unavailable(Exception):
    """Why there can be no engine here."""


def run(*words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120, cwd: Path | None = None,
        check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """A command to its end; a LabError with what it said where it fails, unless that is for the caller to judge."""
    try:
        done = subprocess.run([str(word) for word in words], stdin=subprocess.DEVNULL, capture_output=True, check=False,
                              timeout=timeout_s, cwd=cwd, env=env)
    except subprocess.TimeoutExpired as error:
        raise process.LabError(f"{' '.join(map(str, words))} takes longer than {timeout_s:.0f} s") from error
    if check and done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace")
        raise process.LabError(f"{' '.join(map(str, words))} ended with {done.returncode}:\n{said[-3000:]}")
    return done


class Tools:
    """The programs: what of PACKAGES and what they depend on is not installed is unpacked into build/deploy/tools."""

    def __init__(self, say: process.Progress) -> None:
        root = CACHE / "tools"
        if os.geteuid() != 0:
            raise Unavailable("not root")
        if not shutil.which("apt-get"):
            raise Unavailable("no apt")
        if not (CACHE / "tools-are-there").exists():
            say("fetching what is missing of " + ", ".join(PACKAGES))
            self._fetch(root)
            (CACHE / "tools-are-there").touch()
        # Not what is in /usr/local: Debian's docker has BuildKit in itself, others need a plugin for it.
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("DOCKER_", "COMPOSE_", "WEED_"))} | {
            "PATH": ":".join(f"{prefix}/{folder}" for prefix in (root, "") for folder in ("usr/bin", "usr/sbin", "bin", "sbin")),
            "LD_LIBRARY_PATH": f"{root}/usr/lib/{os.uname().machine}-linux-gnu",
            "PYTHONPATH": f"{root}/usr/lib/python3/dist-packages",
            "DOCKER_BUILDKIT": "1",
            "HOME": str(CACHE)}

    @staticmethod
    def _fetch(root: Path) -> None:
        archives = CACHE / "archives"
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        (archives / "partial").mkdir(parents=True, exist_ok=True)
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
        for words in (["update"], ["-y", "--no-install-recommends", "--download-only", "-o", f"Dir::Cache::archives={archives}",
                                   "-o", "APT::Sandbox::User=root", "install", *PACKAGES]):
            done = subprocess.run([*apt, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=300)
            if done.returncode != 0:
                raise Unavailable(f"apt-get {words[0]}: {done.stderr.strip()[-300:]}")
        for package in sorted(archives.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=120)
        shutil.rmtree(archives)

    def run(self, *words: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120, cwd: Path | None = None,
            check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return run(*words, env=self.environment | dict(env or {}), timeout_s=timeout_s, cwd=cwd, check=check)

    def base_system(self, say: process.Progress) -> Path:
        """A tar of a minimal Debian 12."""
        system = CACHE / "debian.tar"
        if not system.exists():
            say("making a minimal Debian 12")
            unfinished = system.with_name("unfinished-debian.tar")
            done = self.run("mmdebstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", unfinished, timeout_s=600,
                            check=False)
            if done.returncode != 0:
                raise Unavailable(f"mmdebstrap: {done.stderr.decode(errors='replace').strip()[-300:]}")
            unfinished.rename(system)
        return system


class Engine:
    """A context manager: dockerd runs in it. `group` of control groups is removed with it."""

    def __init__(self, tools: Tools, home: Path) -> None:
        self.tools = tools
        self.home = home
        self.environment = {"DOCKER_HOST": f"unix://{home}/docker.sock"}
        self.group = f"kelp-{os.getpid()}"
        self.log = home / "dockerd.log"
        self.lock = (CACHE / "lock").open("w")
        self.child: process.Child

    def __enter__(self) -> Engine:
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise process.LabError(f"another test has the engine of {CACHE}") from error
        data = CACHE / "docker"
        if any((data / "containers").glob("*")):
            shutil.rmtree(data)  # a run was killed, and dockerd would start its containers anew
        self.child = process.Child(
            "dockerd", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "docker-init", "--", "dockerd",
                        f"--data-root={data}", f"--exec-root={self.home / 'exec'}", f"--pidfile={self.home / 'dockerd.pid'}",
                        f"--host={self.environment['DOCKER_HOST']}", "--bridge=none", "--iptables=false", "--ip6tables=false",
                        "--oom-score-adjust=0", "--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self.group}"],
            self.log, env=self.tools.environment)
        try:
            try:
                process.wait_until("dockerd", lambda: self.docker("version", check=False).returncode == 0, [self.child])
            except process.LabError as error:
                raise Unavailable(f"dockerd does not start: {error}") from error
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        # With the first process of the PID namespace everything in it ends.
        self.child.process.kill()
        self.child.process.wait()
        process.wait_until("the control groups to be empty", self._remove_groups, [], 30)
        self.lock.close()

    def _remove_groups(self) -> bool:
        try:
            for folder in sorted(Path("/sys/fs/cgroup").glob(f"**/{self.group}/**/"), key=lambda path: -len(path.parts)):
                folder.rmdir()
        except OSError:
            return False  # what was killed has not ended yet
        return True

    def docker(self, *words: str | Path, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[bytes]:
        return self.tools.run("docker", *words, env=self.environment, check=check, timeout_s=timeout_s)

    def lines(self, *words: str) -> list[str]:
        return self.docker(*words).stdout.decode().split()

    def inspect(self, container: str) -> dict[str, Any]:
        return json.loads(self.docker("inspect", container).stdout)[0]

    def pid(self, container: str) -> int:
        """Of a container's first process, as this process sees it: dockerd is in a PID namespace of its own."""
        name = self.inspect(container)["Id"]
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                namespaced = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:")).split()
                if namespaced[-1] == "1" and name in (status.parent / "cgroup").read_text():
                    return int(status.parent.name)
            except (OSError, StopIteration):
                continue  # ended meanwhile
        raise process.LabError(f"the first process of {container} is not to be found")

    @property
    def first(self) -> int:
        """The first process of dockerd's PID namespace, the child of unshare: it waits for those that dockerd leaves behind."""
        return int(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text().split()[0])

    def processes(self) -> list[str]:
        """Names of all processes of dockerd's PID namespace and those below it, but the engine's own."""
        found: list[str] = []
        waiting = [str(self.first)]
        while waiting:
            pid = waiting.pop()
            try:
                waiting += [child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()]
                found.append(Path(f"/proc/{pid}/comm").read_text().strip())
            except OSError:
                continue
        return sorted(name for name in found if name not in ("docker-init", "dockerd", "containerd"))

    def mounts(self) -> list[str]:
        """What is mounted in dockerd's mount namespace for containers."""
        lines = Path(f"/proc/{self.first}/mountinfo").read_text().splitlines()
        own = (f" {CACHE / 'docker'} ", f" {self.home / 'exec' / 'netns' / 'default'} ")  # itself, and the host's network
        return [line for line in lines if (str(CACHE) in line or str(self.home) in line or " - fuse" in line)
                and not any(place in line for place in own)]

    def build(self, tag: str, dockerfile: Path, context: Path, arguments: Mapping[str, str] | None = None) -> None:
        words = [word for key, value in (arguments or {}).items() for word in ("--build-arg", f"{key}={value}")]
        for attempts_left in (2, 1, 0):  # it fetches packages, which may fail
            try:
                self.docker("build", "--network=host", "--tag", tag, *words, "--file", dockerfile, context, timeout_s=600)
                return
            except process.LabError:
                if not attempts_left:
                    raise

    def import_base(self, system: Path) -> None:
        """The image BASE, once."""
        mark = CACHE / "base-image-of"
        state = str(system.stat().st_mtime_ns)
        if not mark.exists() or mark.read_text() != state or not self.lines("images", "--quiet", BASE):
            self.docker("import", system, BASE)
            mark.write_text(state)

